"""What the Job makes of the exit codes: permanent errors fail it at once, transient ones are tried again."""

from typing import Any

import pytest

from tests.cluster.deployment import PATIENCE, Deploy, terminated


@pytest.mark.parametrize(
    ("code", "scenario"),
    [
        (65, {"faults": ["reset-after"]}),
        (65, {"faults": ["huge"]}),  # more than the memory limit would allow to be held in several copies
        (76, {"faults": ["422"]}),
        (77, {"faults": ["403"]}),
        (78, {"faults": ["404"]}),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else value["faults"][0],
)
def test_a_permanent_error_fails_the_job_at_once_and_can_be_read_in_describe(
    deploy: Deploy, code: int, scenario: dict[str, Any]
) -> None:
    deployment = deploy(**scenario)
    deployment.start("run")
    deployment.wait("job/run", "Failed")
    assert deployment.exit_codes("run") == [code]
    (job,) = deployment.get("jobs")
    (failed,) = (one for one in job["status"]["conditions"] if one["type"] == "Failed")
    assert failed["reason"] == "PodFailurePolicy"
    description = deployment.run("kubectl describe pod -l app.kubernetes.io/name=force-submit-proctor")
    assert f"Ended with exit code {code}" in description
    assert f"Exit Code:    {code}" in description


def test_a_volume_without_fsgroup_must_belong_to_the_user_of_the_pod(prepare: Deploy) -> None:
    deployment = prepare()
    deployment.create_volume({"hostPath": {"path": str(deployment.volume)}})
    deployment.fill_in()
    deployment.write_secrets()
    deployment.apply()
    deployment.start("before")
    deployment.wait("job/before", "Failed")
    assert deployment.exit_codes("before") == [74]
    assert "chown 10001" in terminated(deployment.pods("before")[0])["message"]
    assert not deployment.proctor.record
    deployment.run("chown 10001 volume")
    deployment.start("after")
    deployment.wait("job/after", "Complete")
    deployment.assert_each_exam_has_one_row()


def test_an_unavailable_proctor_is_tried_again_by_another_pod(deploy: Deploy) -> None:
    deployment = deploy(faults=["503"], settings={"MAX_ATTEMPTS": "1"})
    deployment.start("run")
    deployment.wait("job/run", "Complete")
    assert deployment.exit_codes("run") == [69, 0]
    deployment.assert_each_exam_has_one_row()


def test_of_two_runs_at_once_the_second_expires_nothing_and_tries_again_later(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"])
    deployment.start("first")
    deployment.wait_for_held_call()
    deployment.start("second")
    deployment.kubectl("wait", "job/second", "--for=jsonpath={.status.failed}=1", f"--timeout={PATIENCE}s")
    assert terminated(deployment.pods("second")[0])["exitCode"] == 75
    deployment.proctor.release.set()
    deployment.wait("job/first", "Complete")
    deployment.wait("job/second", "Complete")
    assert len(deployment.proctor.record) == 4  # three calls of the first, and one that finds nothing left
    deployment.assert_each_exam_has_one_row()
