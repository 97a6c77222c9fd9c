"""The Docker engine is stopped in the middle of a scheduled run and started again, as in an upgrade or a reboot.

The engine is one of the test's own, in a network namespace, so that other tests keep theirs.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import pytest

from app.simulator import Scenario
from tests.containers.engine import UID, Engine
from tests.containers.stack import FINISHED, SOON, Stack, line_in
from tests.embedded import EmbeddedProctor
from tests.support import ROOT, expired, ids_in

OTHER_IMAGES = re.findall(r"image: (\S+:\S+)", (ROOT / "docker-compose.yml").read_text())
RUN_LOG = "force-submit.log"


def run(*command: str, stdin: IO[bytes] | None = None) -> None:
    subprocess.run(command, check=True, stdin=stdin, stdout=subprocess.DEVNULL)


class Namespace:
    """A network namespace that reaches this machine at one address, and nothing else."""

    def __init__(self) -> None:
        number = os.getpid() % 2**14
        network, last = f"198.18.{number // 64}", number % 64 * 4  # 198.18.0.0/15 is for tests of networks
        self.host = f"{network}.{last + 1}"
        self.name, outside = f"force-submit-{number}", f"submit{number}"
        ip = f"ip -n {self.name}"
        for command in (
            f"ip netns add {self.name}",
            f"ip link add {outside} type veth peer name eth0 netns {self.name}",
            f"ip addr add {self.host}/30 dev {outside}",
            f"ip link set {outside} up",
            f"{ip} addr add {network}.{last + 2}/30 dev eth0",
            f"{ip} link set eth0 up",
            f"{ip} link set lo up",
            f"{ip} route add default via {self.host}",
        ):
            run(*command.split())

    def close(self) -> None:
        run("ip", "-n", self.name, "link", "del", "eth0")
        run("ip", "netns", "del", self.name)


class Dockerd:
    """An engine in a namespace, which can be ended and started again."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.url = f"unix://{directory}/docker.sock"
        self._log = directory / "log"
        self._command = ["nsenter", f"--net=/run/netns/{namespace.name}", "dockerd", "-H", self.url]
        for option, name in (("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")):
            self._command += [option, str(directory / name)]

    def start(self) -> None:
        """Start it, and wait until it responds."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        line_in(self._log, "API listen on")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(120)


@pytest.fixture
def dockerd(image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Dockerd, str]]:
    """An engine that has the images, and this machine's address as its containers see it."""
    if os.geteuid() or not all(map(shutil.which, ("dockerd", "ip", "nsenter"))):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("an engine of its own needs root, dockerd and ip")
    with ExitStack() as stack:
        # A short path, as that of a socket must be.
        directory = stack.enter_context(TemporaryDirectory(prefix="engine-"))
        namespace = Namespace()
        stack.callback(namespace.close)
        dockerd = Dockerd(namespace, Path(directory))
        stack.callback(dockerd.end)
        dockerd.start()
        with subprocess.Popen(["docker", "save", image, *OTHER_IMAGES], stdout=subprocess.PIPE) as save:
            run("docker", "-H", dockerd.url, "load", "-q", stdin=save.stdout)
        monkeypatch.setenv("DOCKER_HOST", dockerd.url)
        yield dockerd, namespace.host


@pytest.fixture
def proctor(dockerd: tuple[Dockerd, str]) -> Iterator[EmbeddedProctor]:
    with EmbeddedProctor(Scenario(faults=["ok", "hold"]), host=dockerd[1]) as simulator:
        yield simulator


@pytest.fixture
def output(tmp_path: Path) -> Path:
    output = tmp_path / "output"
    output.mkdir()
    os.chown(output, UID, UID)
    return output


@pytest.fixture
def stack(dockerd: tuple[Dockerd, str], proctor: EmbeddedProctor, tmp_path: Path, output: Path) -> Iterator[Stack]:
    stack = Stack(Engine(dockerd[1]), tmp_path, proctor)
    stack.up(SCHEDULE=SOON, OUTPUT=str(output))
    yield stack
    proctor.release.set()
    stack.close()


def test_an_engine_that_is_stopped_waits_for_the_call_and_schedules_again_when_started(
    stack: Stack, proctor: EmbeddedProctor, dockerd: tuple[Dockerd, str], output: Path
) -> None:
    engine, _ = dockerd
    assert proctor.held.wait(60)
    engine.process.terminate()
    assert line_in(output / RUN_LOG, '"event": "signal"')
    proctor.release.set()
    assert engine.process.wait(120) == 0
    (summary,) = (json.loads(path.read_text()) for path in output.glob("*.json"))
    assert (summary["outcome"], summary["exit_code"], summary["lost"]) == ("interrupted", 128 + 15, [])
    assert len(proctor.record) == 2

    engine.start()
    assert "failed: false" in stack.log("ofelia", f"{FINISHED}, error: none", tail="0")
    stack.compose("down")
    assert ids_in(output) == sorted(expired(proctor))
    assert len(expired(proctor)) == 250
