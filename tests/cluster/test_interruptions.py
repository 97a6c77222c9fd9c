"""Pods that are deleted, evicted or killed in the middle of a call, judged by the embedded Proctor's record."""

import json

from tests.cluster.deployment import PATIENCE, Deploy, terminated
from tests.support import expired


def test_a_deleted_pod_writes_the_rows_of_its_call_and_the_next_one_goes_on(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"])
    pod = deployment.start_held("run")
    deployment.kubectl("delete", "pod", pod, "--wait=false")
    deployment.release_after_sigterm(pod)
    deployment.wait("job/run", "Complete")
    assert [(one["outcome"], one["exit_code"]) for one in deployment.summaries] == [
        ("interrupted", 143),
        ("drained", 0),
    ]
    assert not any(one["lost"] for one in deployment.summaries)
    deployment.assert_each_exam_has_one_row()


def test_a_deleted_pod_that_had_lost_a_response_fails_the_job(deploy: Deploy) -> None:
    deployment = deploy(faults=["500-after", "hold"])
    pod = deployment.start_held("run")
    deployment.kubectl("delete", "pod", pod, "--wait=false")
    deployment.release_after_sigterm(pod)
    deployment.wait("job/run", "Failed")
    (summary,) = deployment.summaries
    assert (summary["outcome"], summary["exit_code"], len(summary["lost"])) == ("interrupted", 65, 1)
    lost, _ = deployment.proctor.record
    deployment.assert_lost(lost)
    assert len(lost["expired"]) == 100


def test_an_evicted_pod_does_not_count_as_an_attempt(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"])
    pod = deployment.start_held("run")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": deployment.name}}
    path = f"/api/v1/namespaces/{deployment.name}/pods/{pod}/eviction"
    deployment.kubectl("create", "--raw", path, "-f", "-", content=json.dumps(eviction))
    deployment.release_after_sigterm(pod)
    deployment.wait("job/run", "Complete")
    (job,) = deployment.get("jobs")
    assert not job["status"].get("failed")
    assert [one["exit_code"] for one in deployment.summaries] == [143, 0]
    deployment.assert_each_exam_has_one_row()


def test_after_a_killed_container_the_next_pod_waits_for_the_call_and_reports_its_window(deploy: Deploy) -> None:
    deployment = deploy(latency=20, settings={"READ_TIMEOUT": "40"})
    proctor = deployment.proctor
    deployment.start("run")
    assert proctor.call_began.wait(PATIENCE)
    deployment.kill_container(deployment.running_pod("run"))
    proctor.scenario.latency = 0
    deployment.wait("job/run", "Failed")
    assert deployment.exit_codes("run") == [137, 65]
    log = terminated(deployment.pods("run")[1])["message"]
    assert "Proctor may still be working on the last call of an earlier run" in log
    killed, *others = proctor.record
    assert killed["changed"] < min(call["start"] for call in others)  # no two calls at work at once
    assert [one["outcome"] for one in deployment.summaries] == ["killed", "drained"]
    deployment.assert_lost(killed)
    changed = expired(proctor)
    assert len(changed) == len(set(changed)) == 250


def test_after_a_run_that_is_out_of_memory_the_next_pod_reports_its_window(deploy: Deploy) -> None:
    deployment = deploy(faults=["huge"], settings={"READ_TIMEOUT": "10"})
    resources = "/spec/jobTemplate/spec/template/spec/containers/0/resources"
    little = {"requests": {"memory": "36Mi"}, "limits": {"memory": "36Mi"}}  # not enough for a response of 16 MiB
    patch = json.dumps([{"op": "replace", "path": resources, "value": little}])
    deployment.kubectl("patch", "cronjob", "force-submit-proctor", "--type=json", "-p", patch)
    deployment.start("run")
    deployment.wait("job/run", "Failed")
    assert deployment.exit_codes("run") == [137, 65]
    assert terminated(deployment.pods("run")[0])["reason"] == "OOMKilled"
    killed, *_ = deployment.proctor.record
    deployment.assert_lost(killed)
