"""The fixtures that the tests share: embedded Proctors, the job, and servers that respond as configured."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from app.simulator import Scenario, Simulator
from tests.certificates import Authority
from tests.embedded import EmbeddedProctor
from tests.servers import responding, response, serving
from tests.support import QUICK, Jobs, Result, Run, Serve, Simulate

pytest_plugins = ["tests.containers.engine", "tests.recover.fixtures"]


def pytest_configure() -> None:
    """Have no signal ignored in the jobs, as is what a shell starts with `&` or `nohup`: a handler survives no exec."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One worker runs all tests of the cluster, as some of them disturb it. All other tests go to whoever is free.

    `--dist=loadgroup` does not do it: xdist 3.8 groups nothing with pytest 9.2 (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if nodeid.startswith("tests/cluster/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    return Scheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Start embedded Proctors: `simulate(exams=250, faults=["503"])`, with the fields of `Scenario`."""
    with ExitStack() as stack:

        def start(certificate: tuple[str, str] | None = None, **scenario: Any) -> EmbeddedProctor:
            return stack.enter_context(EmbeddedProctor(Scenario(**scenario), certificate=certificate))

        yield start


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that respond to every request with the same status, headers and body; returns the URL of one."""
    with ExitStack() as stack:

        def start(status: int, headers: dict[str, str], body: bytes) -> str:
            return stack.enter_context(serving(responding(response(status, body, **headers)))).url

        yield start


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    volume.mkdir()
    return volume


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    directory = tmp_path / "job"
    directory.mkdir()
    jobs = Jobs(directory)
    yield jobs
    jobs.close()


@pytest.fixture
def run(jobs: Jobs) -> Run:
    """Run the job against a simulator, without waits and with JSON logs: `run(simulator, MAX_ATTEMPTS="2")`."""

    def run(simulator: Simulator, *arguments: str, **settings: str) -> Result:
        return jobs.run({**simulator.settings(), **QUICK, **settings}, *arguments)

    return run
