"""Parts of the cluster that fail in the middle of a call, and its node drained or lost."""

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.cluster.deployment import PATIENCE, Deploy, Deployment
from tests.documents import commands
from tests.support import ROOT


@pytest.mark.parametrize("part", ["apiserver", "containerd", "controller-manager", "etcd", "kubelet", "scheduler"])
def test_a_part_of_the_cluster_that_is_restarted_does_not_disturb_a_run(deploy: Deploy, part: str) -> None:
    deployment = deploy(faults=["hold"])
    deployment.start_held("run")
    cluster("restart", part)
    deployment.proctor.release.set()
    deployment.wait("job/run", "Complete")
    assert deployment.exit_codes("run") == [0]
    assert outcomes(deployment) == [("drained", 0)]
    deployment.assert_each_exam_has_one_row()


def test_a_run_that_ends_without_an_api_server_is_known_to_be_complete_when_that_is_back(deploy: Deploy) -> None:
    deployment = deploy(faults=["hold"])
    deployment.start_held("run")
    with without("apiserver"):
        deployment.proctor.release.set()
        deployment.wait_for_summary()
    deployment.wait("job/run", "Complete")
    assert deployment.exit_codes("run") == [0]
    assert outcomes(deployment) == [("drained", 0)]
    deployment.assert_each_exam_has_one_row()


@pytest.mark.parametrize("part", ["controller-manager", "scheduler"])
def test_a_pod_deleted_while_no_other_can_be_started_is_replaced_later(deploy: Deploy, part: str) -> None:
    deployment = deploy(faults=["hold"])
    pod = deployment.start_held("run")
    with without(part):
        deployment.kubectl("delete", "pod", pod, "--wait=false")
        deployment.release_after_sigterm(pod)
        deployment.wait_for_summary()
    deployment.wait("job/run", "Complete")
    assert outcomes(deployment) == [("interrupted", 143), ("drained", 0)]
    deployment.assert_each_exam_has_one_row()


def test_a_drain_waits_for_the_call_and_another_pod_goes_on_after_it(deploy: Deploy, node: str) -> None:
    deployment = deploy(faults=["hold"])
    job = deployment.name  # no other test has a job of this name
    pod = deployment.start_held(job)
    drain = f"kubectl drain {node} --ignore-daemonsets --delete-emptydir-data --force"
    with ThreadPoolExecutor() as background:
        drained = background.submit(deployment.run, f"{drain} --pod-selector=batch.kubernetes.io/job-name={job}")
        deployment.wait_for_log(pod, "Received SIGTERM")
        assert not drained.done()
        deployment.proctor.release.set()
        drained.result()
    assert outcomes(deployment) == [("interrupted", 143)]
    deployment.assert_each_exam_has_one_row()
    deployment.wait_for_event("FailedScheduling", "unschedulable")
    assert len(deployment.proctor.record) == 1
    deployment.kubectl("uncordon", node)
    deployment.wait(f"job/{job}", "Complete")
    assert outcomes(deployment) == [("interrupted", 143), ("drained", 0)]
    deployment.assert_each_exam_has_one_row()
    assert len(deployment.exam_ids) == 250


def test_a_lost_node_blocks_scheduled_runs_until_it_is_tainted_and_then_its_loss_is_reported(
    deploy: Deploy, node: str
) -> None:
    deployment = deploy(faults=["hold"], settings={"READ_TIMEOUT": "60"})
    taint, remove_taint = commands("deploy/kubernetes/README.md", "A lost node")
    deployment.make_due(10)
    deployment.wait_for_held_call()
    (job,) = deployment.get("jobs")
    name = job["metadata"]["name"]
    pod = deployment.running_pod(name)
    with without("kubelet"):
        deployment.kill_container(pod)
        deployment.kubectl("delete", "pod", pod, "--force", "--grace-period=0", "--wait=false")
        deployment.make_due(5)
        deployment.wait_for_event("JobAlreadyActive")
        assert re.search(rf"^{pod} .* Terminating ", deployment.kubectl("get", "pods"), re.MULTILINE)
        deployment.run(taint.replace("NODE", node))
        deployment.kubectl("wait", f"pod/{pod}", "--for=delete", f"--timeout={PATIENCE}s")
    deployment.run(remove_taint.replace("NODE", node))
    deployment.proctor.release.set()
    deployment.wait(f"job/{name}", "Failed")
    assert deployment.exit_codes(name) == [65]
    assert [one["outcome"] for one in deployment.summaries] == ["killed", "drained"]
    lost, *_ = deployment.proctor.record
    deployment.assert_lost(lost)


@pytest.fixture
def node(cluster: str) -> Iterator[str]:  # noqa: ARG001 - the cluster must be there
    """The name of the node, which takes pods again after the test."""
    yield "node"
    subprocess.run(["kubectl", "uncordon", "node"], check=True)
    subprocess.run(["kubectl", "taint", "node", "node", "node.kubernetes.io/out-of-service-"], check=False)


def outcomes(deployment: Deployment) -> list[tuple[str, int]]:
    """How the runs ended, by their summaries, none of which reports a lost response."""
    assert not any(summary["lost"] for summary in deployment.summaries)
    return [(summary["outcome"], summary["exit_code"]) for summary in deployment.summaries]


def cluster(action: str, part: str) -> None:
    subprocess.run([ROOT / ".ci" / "cluster", action, part], check=True)


@contextmanager
def without(part: str) -> Iterator[None]:
    """A part of the cluster is down until the block is left."""
    cluster("down", part)
    try:
        yield
    finally:
        cluster("up", part)
