"""Pods that are deleted, evicted or killed in the middle of a call, judged by the embedded Proctor's record."""

import json
import subprocess
from datetime import datetime

from tests.cluster.deployment import PATIENCE, Deploy, terminated
from tests.support import ROOT, expired


def test_a_deleted_pod_writes_the_rows_of_its_call_and_the_next_one_goes_on(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"])
    deployment.start("run")
    deployment.wait_for_held_call()
    pod = deployment.running_pod("run")
    deployment.kubectl("delete", "pod", pod, "--wait=false")
    deployment.wait_for_log(pod, "Received SIGTERM")
    deployment.proctor.release.set()
    deployment.wait("job/run", "Complete")
    assert [(one["outcome"], one["exit_code"]) for one in deployment.summaries] == [
        ("interrupted", 143),
        ("drained", 0),
    ]
    assert not any(one["lost"] for one in deployment.summaries)
    deployment.assert_each_exam_has_one_row()


def test_a_deleted_pod_that_had_lost_a_response_fails_the_job(deploy: Deploy) -> None:
    deployment = deploy(faults=["500-after", "hold"])
    deployment.start("run")
    deployment.wait_for_held_call()
    pod = deployment.running_pod("run")
    deployment.kubectl("delete", "pod", pod, "--wait=false")
    deployment.wait_for_log(pod, "Received SIGTERM")
    deployment.proctor.release.set()
    deployment.wait("job/run", "Failed")
    (summary,) = deployment.summaries
    assert (summary["outcome"], summary["exit_code"], len(summary["lost"])) == ("interrupted", 65, 1)
    lost, received = (call["expired"] for call in deployment.proctor.record)
    assert sorted(deployment.exam_ids) == sorted(received)
    assert len(lost) == 100


def test_an_evicted_pod_does_not_count_as_an_attempt(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"])
    deployment.start("run")
    deployment.wait_for_held_call()
    pod = deployment.running_pod("run")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": deployment.name}}
    path = f"/api/v1/namespaces/{deployment.name}/pods/{pod}/eviction"
    deployment.kubectl("create", "--raw", path, "-f", "-", content=json.dumps(eviction))
    deployment.wait_for_log(pod, "Received SIGTERM")
    deployment.proctor.release.set()
    deployment.wait("job/run", "Complete")
    (job,) = deployment.get("jobs")
    assert not job["status"].get("failed")
    assert [one["exit_code"] for one in deployment.summaries] == [143, 0]
    deployment.assert_each_exam_has_one_row()


def test_after_a_killed_container_the_next_pod_waits_for_the_call_and_reports_its_window(deploy: Deploy) -> None:
    deployment = deploy(latency=12, settings={"READ_TIMEOUT": "20"})
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
    (window,) = deployment.summaries[1]["lost"]
    assert instant(window["start"]) <= instant(killed["start"]) <= instant(killed["changed"]) <= instant(window["end"])
    changed = expired(proctor)
    assert len(changed) == len(set(changed)) == 250
    assert sorted([*deployment.exam_ids, *killed["expired"]]) == sorted(changed)


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
    (window,) = deployment.summaries[0]["lost"]
    assert instant(window["start"]) <= instant(killed["changed"]) <= instant(window["end"])
    assert sorted([*deployment.exam_ids, *killed["expired"]]) == sorted(expired(deployment.proctor))


def test_a_kubelet_that_is_restarted_does_not_disturb_a_run(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"], settings={"READ_TIMEOUT": "300"})
    deployment.start("run")
    deployment.wait_for_held_call()
    deployment.running_pod("run")
    subprocess.run([ROOT / ".ci" / "cluster", "restart", "kubelet"], check=True)
    deployment.proctor.release.set()
    deployment.wait("job/run", "Complete")
    assert deployment.exit_codes("run") == [0]
    deployment.assert_each_exam_has_one_row()


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
