"""What deploy/kubernetes puts on the cluster, in a namespace of its own for each test, and its embedded Proctor."""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from app import __version__
from tests.containers.secrets import plain, write_secrets
from tests.embedded import EmbeddedProctor
from tests.promise import holds
from tests.support import ROOT, expired, output_of, rows_of

IMAGE = "cluster.test/force-submit-proctor:tested"
PATIENCE = 150  # seconds after which something that does not happen fails a test
QUICK = {"MAX_WAIT": "0"}
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"

_numbers = count(1)


class Deployment:
    """A namespace that admits restricted pods only, with a copy of the kustomizations filled in for a Proctor."""

    def __init__(self, directory: Path, proctor: EmbeddedProctor) -> None:
        self.proctor = proctor
        self.root = directory
        """Where the commands are run, as if it were a clone of the project."""
        self.volume = directory / "volume"
        """The directory on the node that the claim is bound to."""
        self.name = f"test-{os.getpid()}-{next(_numbers)}"
        kubeconfig = directory / "kubeconfig"
        shutil.copy(os.environ["KUBECONFIG"], kubeconfig)
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self.kubectl("create", "namespace", self.name)
        self.kubectl("label", "namespace", self.name, RESTRICTED)
        self.kubectl("config", "set-context", "--current", f"--namespace={self.name}")
        self.kubectl("wait", "--for=create", "serviceaccount/default", f"--timeout={PATIENCE}s")
        self.kustomizations = directory / "deploy" / "kubernetes"
        shutil.copytree(ROOT / "deploy", directory / "deploy", ignore=shutil.ignore_patterns("secrets"))
        never = ("0 2 * * *", "0 0 29 2 *")  # whatever the time is, no run starts but those that a test asks for
        self.edit("job", never, file="cronjob.yaml")
        registry, tag = IMAGE.rsplit(":", 1)
        version = (f"newTag: {__version__}", f"newTag: {tag}")
        self.edit("image", ("registry.example.org/force-submit-proctor", registry), version)

    def edit(self, name: str, *replacements: tuple[str, str], file: str = "kustomization.yaml") -> None:
        """Replace texts, each of which must be there, in a kustomization."""
        path = self.kustomizations / name / file
        text = path.read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)

    def fill_in(self, **settings: str) -> None:
        """Write the settings."""
        values = {**plain(self.proctor.settings()), **QUICK, **settings}
        content = "".join(f"{name}={value}\n" for name, value in values.items())
        (self.kustomizations / "job" / "settings.env").write_text(content)

    def write_secrets(self, place: str = "deploy/kubernetes/job/secrets") -> None:
        write_secrets(self.root / place, self.proctor)

    def apply(self) -> None:
        """Apply volume and job, as the README has it."""
        self.run("kubectl apply -k deploy/kubernetes/volume && kubectl apply -k deploy/kubernetes/job")

    def create_volume(self, source: dict[str, Any] | None = None) -> None:
        """A volume for the claim. By default of a kind that honours fsGroup, as those of most storage classes do."""
        self.volume.mkdir()
        node = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}
        self.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": self.name},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "claimRef": {"namespace": self.name, "name": "force-submit-proctor"},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}},
                    **(source or {"local": {"path": str(self.volume)}}),
                },
            }
        )

    def run(self, command: str) -> str:
        """Run a command of the shell as an operator does, in a clone of the project; returns its stdout."""
        return self._output(["bash", "-euo", "pipefail", "-c", command])

    def kubectl(self, *arguments: str, content: str | None = None) -> str:
        """Run kubectl with `content` as stdin; returns its stdout."""
        return self._output(["kubectl", *arguments], content)

    def _output(self, command: list[str], content: str | None = None) -> str:
        return output_of(command, typed=content, cwd=self.root, env=self._environment, timeout=PATIENCE * 2)

    def create(self, manifest: dict[str, Any]) -> None:
        self.kubectl("create", "-f", "-", content=json.dumps(manifest))

    def start(self, job: str) -> None:
        """Start a run by hand."""
        self.kubectl("create", "job", "--from=cronjob/force-submit-proctor", job)

    def start_held(self, job: str) -> str:
        """Start a run by hand and wait until a call meets the fault `hold`; returns the name of its pod."""
        self.start(job)
        self.wait_for_held_call()
        return self.running_pod(job)

    def make_due(self, minutes: int) -> None:
        """Change the schedule to one whose last time was some minutes ago, and was missed: a run is due at once."""
        due = datetime.now(UTC) - timedelta(minutes=minutes)
        schedule = {"spec": {"schedule": f"{due.minute} {due.hour} * * *"}}
        last = {"status": {"lastScheduleTime": f"{due - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"}}
        patch = ("patch", "cronjob", "force-submit-proctor", "--type=merge")
        self.kubectl(*patch, "-p", json.dumps(schedule))
        self.kubectl(*patch, "--subresource=status", "-p", json.dumps(last))

    def wait(self, thing: str, condition: str) -> None:
        """Wait until a condition of a thing, such as `Failed` of `job/name`, is true."""
        self.kubectl("wait", thing, f"--for=condition={condition}", f"--timeout={PATIENCE}s")

    def wait_for_held_call(self) -> None:
        """Wait until a call meets the fault `hold`."""
        assert self.proctor.held.wait(PATIENCE), "There was no call"

    def release_after_sigterm(self, pod: str) -> None:
        """Let the held call of a pod go on once the pod has been told to end."""
        self.wait_for_log(pod, "Received SIGTERM")
        self.proctor.release.set()

    def wait_for_summary(self) -> None:
        """Wait until there is a summary on the volume, which does not need the cluster."""
        self.run("until ls volume/*.json; do sleep 1; done")

    def wait_for_event(self, reason: str, text: str = "") -> None:
        """Wait for an event with that reason, such as `FailedMount`, whose message has that text."""
        columns = "custom-columns=REASON:.reason,MESSAGE:.message"
        with self._lines("get", "events", "--watch", "--no-headers", "-o", columns) as lines:
            found = any(line.split(maxsplit=1)[0] == reason and text in line for line in lines)
        assert found, f"There was no event {reason} {text}"

    def wait_for_log(self, pod: str, text: str) -> None:
        """Wait until the log of a pod has that text."""
        with self._lines("logs", "-f", pod) as lines:
            assert any(text in line for line in lines)

    @contextmanager
    def _lines(self, *arguments: str) -> Iterator[Iterator[str]]:
        """The lines that kubectl prints until the block is left, or until it has taken too long."""
        command = ["timeout", str(PATIENCE), "kubectl", *arguments]
        with subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            yield iter(process.stdout)
            process.terminate()

    def get(self, kind: str, *selection: str) -> list[dict[str, Any]]:
        """Everything of a kind, the oldest first."""
        items = json.loads(self.kubectl("get", kind, *selection, "-o", "json"))["items"]
        return sorted(items, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def pods(self, job: str) -> list[dict[str, Any]]:
        return self.get("pods", "-l", f"batch.kubernetes.io/job-name={job}")

    def running_pod(self, job: str) -> str:
        """The name of the one pod of a job that has made a call, once Kubernetes knows that it runs."""
        (pod,) = self.pods(job)
        self.wait(f"pod/{pod['metadata']['name']}", "Ready")
        return str(pod["metadata"]["name"])

    def exit_codes(self, job: str) -> list[int]:
        """Those of the job's pods that are still there."""
        return [terminated(pod)["exitCode"] for pod in self.pods(job)]

    def kill_container(self, pod: str) -> None:
        """Kill the process of a pod's container, as the kernel does when memory runs out."""
        path = "jsonpath={.status.containerStatuses[0].containerID}"
        container = self.kubectl("get", "pod", pod, "-o", path).removeprefix("containerd://")
        subprocess.run(["ctr", "tasks", "kill", "--signal", "SIGKILL", container], check=True)

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """The summaries on the volume, in the order of the runs."""
        return [json.loads(path.read_bytes()) for path in sorted(self.volume.glob("*.json"))]

    @property
    def exam_ids(self) -> list[str]:
        """The ids in all CSVs on the volume."""
        contents = [path.read_bytes() for path in sorted(self.volume.glob("*.csv"))]
        return [row["examId"] for content in contents for row in rows_of(content)]

    def assert_each_exam_has_one_row(self) -> None:
        """Every exam that Proctor changed was changed once, and is in exactly one row."""
        changed = expired(self.proctor)
        assert sorted(self.exam_ids) == sorted(changed)
        assert max(Counter(changed).values(), default=1) == 1

    def assert_lost(self, call: dict[str, Any]) -> None:
        """The exams of a call, and no others, are in no row, and the last run reports a window that has the call."""
        (window,) = self.summaries[-1]["lost"]
        assert holds(window, call["start"])
        assert holds(window, call["changed"])
        assert sorted([*self.exam_ids, *call["expired"]]) == sorted(expired(self.proctor))

    def close(self) -> None:
        self.kubectl("delete", "namespace", self.name, "--wait=false")
        self.kubectl("delete", "persistentvolume", self.name, "--ignore-not-found", "--wait=false")


Deploy = Callable[..., Deployment]
"""Deploys the job for a new Proctor with the fields of `Scenario`: `deploy(faults=["503"], settings={…})`."""


def terminated(pod: dict[str, Any]) -> dict[str, Any]:
    """How a pod's container ended."""
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert isinstance(state, dict)
    return state
