"""The Docker engine ends in the middle of a scheduled run and starts again, as in an upgrade, a reboot or a crash.

The engine is one of the test's own, in a network namespace, so that other tests keep theirs.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.simulator import Scenario, Simulator
from tests.containers.engine import IMAGE, Engine
from tests.containers.stack import FINISHED, SOON, Stack, line_in
from tests.containers.test_docker import UID
from tests.support import expired, rows_of

IMAGES = [IMAGE, "haproxy:3.0", "mcuadros/ofelia:0.3.22"]
RUN_LOG = "force-submit.log"


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Namespace:
    """A network namespace that reaches this machine at one address, and nothing else."""

    def __init__(self) -> None:
        number = os.getpid() % 2**14
        self.name = f"force-submit-{number}"
        network = f"198.18.{number // 64}.{number % 64 * 4}"
        prefix, last = network.rsplit(".", 1)
        self.host, inside = f"{prefix}.{int(last) + 1}", f"{prefix}.{int(last) + 2}"
        outer = f"fs{number}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "addr", "add", f"{self.host}/30", "dev", outer)
        run("ip", "link", "set", outer, "up")
        for command in ("addr add {}/30 dev eth0", "link set eth0 up", "link set lo up", "route add default via {}"):
            run("ip", "-n", self.name, *command.format(self.host if "via" in command else inside).split())

    def close(self) -> None:
        run("ip", "netns", "del", self.name)


class Dockerd:
    """An engine in a namespace, which can be ended and started again."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.url = f"unix://{directory}/docker.sock"
        self._log = directory / "log"
        self._command = ["nsenter", f"--net=/run/netns/{namespace.name}", "dockerd", "-H", self.url]
        for option, name in (("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")):
            self._command += [option, str(directory / name)]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it responds."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            line_in(self._log, "API listen on")
        except AssertionError:
            self.end(signal.SIGKILL)
            raise
        self._log.write_bytes(b"")

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(120)


@pytest.fixture
def dockerd(image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Dockerd, str]]:
    """An engine that has the images, and this machine's address as its containers see it."""
    if os.geteuid() or not all(map(shutil.which, ("dockerd", "ip", "nsenter"))):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("an engine of its own needs root, dockerd and ip")
    with TemporaryDirectory(prefix="engine-") as directory:
        namespace = Namespace()
        dockerd = Dockerd(namespace, Path(directory))
        with subprocess.Popen(["docker", "save", image, *IMAGES[1:]], stdout=subprocess.PIPE) as save:
            subprocess.run(["docker", "-H", dockerd.url, "load", "-q"], stdin=save.stdout, check=True)
        monkeypatch.setenv("DOCKER_HOST", dockerd.url)
        yield dockerd, namespace.host
        dockerd.end()
        namespace.close()


@pytest.fixture
def proctor(dockerd: tuple[Dockerd, str]) -> Iterator[Simulator]:
    with Simulator(Scenario(faults=["ok", "hold"]), host=dockerd[1]) as simulator:
        yield simulator
        simulator.release.set()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    output = tmp_path / "output"
    output.mkdir()
    os.chown(output, UID, UID)
    return output


@pytest.fixture
def stack(dockerd: tuple[Dockerd, str], proctor: Simulator, tmp_path: Path, output: Path) -> Iterator[Stack]:
    stack = Stack(Engine(dockerd[1]), tmp_path, proctor)
    stack.up(SCHEDULE=SOON, OUTPUT=str(output), READ_TIMEOUT="10")
    yield stack
    proctor.release.set()
    stack.close()


def test_an_engine_that_is_stopped_waits_for_the_call_and_schedules_again_when_started(
    stack: Stack, proctor: Simulator, dockerd: tuple[Dockerd, str], output: Path
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
    exam_ids = [row["examId"] for path in output.glob("*.csv") for row in rows_of(path.read_bytes())]
    assert sorted(exam_ids) == sorted(expired(proctor))
    assert len(exam_ids) == 250
