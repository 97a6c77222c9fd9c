"""Runs by the CronJob's own schedule."""

from tests.cluster.deployment import Deploy


def test_a_run_that_lasts_longer_than_a_minute_is_not_started_a_second_time(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"])
    deployment.kubectl("patch", "cronjob", "force-submit-proctor", "-p", '{"spec": {"schedule": "* * * * *"}}')
    deployment.wait_for_held_call()
    deployment.wait_for_event("JobAlreadyActive")
    (job,) = deployment.get("jobs")
    assert job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    deployment.kubectl("patch", "cronjob", "force-submit-proctor", "-p", '{"spec": {"suspend": true}}')
    deployment.proctor.release.set()
    name = job["metadata"]["name"]
    deployment.wait(f"job/{name}", "Complete")
    assert deployment.exit_codes(name) == [0]
    deployment.assert_each_exam_has_one_row()
