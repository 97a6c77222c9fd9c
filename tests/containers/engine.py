"""A real Docker engine for the tests that need one."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support import ROOT

IMAGE = "force-submit-proctor"
UID = 10001
"""The user in the image."""


class Engine:
    """The docker command, and what it started."""

    def __init__(self, host: str) -> None:
        self.host = host
        """This machine's address as containers see it."""
        self._containers: list[str] = []

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a docker command to its end."""
        return subprocess.run(["docker", *arguments], capture_output=True, check=False, timeout=600)

    def start(self, *arguments: str) -> str:
        """Start a container in the background; returns its id."""
        result = self.docker("run", "-d", *arguments)
        assert result.returncode == 0, result.stderr
        self._containers.append(result.stdout.decode().strip())
        return self._containers[-1]

    def inspect(self, thing: str) -> dict[str, Any]:
        (description,) = json.loads(self.docker("inspect", thing).stdout)
        assert isinstance(description, dict)
        return description

    @contextmanager
    def signals(self, container: str) -> Iterator[Iterator[str]]:
        """The numbers of the signals that the engine sends to a container, as they are sent."""
        selection = ["--filter", f"container={container}", "--filter", "event=kill"]
        form = ["--since", "0", "--format", "{{.Actor.Attributes.signal}}"]
        with subprocess.Popen(["docker", "events", *selection, *form], stdout=subprocess.PIPE, text=True) as events:
            assert events.stdout
            yield iter(events.stdout)
            events.kill()

    def close(self) -> None:
        if self._containers:
            self.docker("rm", "-f", "-v", *self._containers)


def available() -> str:
    """Why there is no engine to test with, or nothing."""
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no Docker engine with compose: {error}"
    return ""


@pytest.fixture(scope="session")
def image() -> str:
    """The image, built from the Dockerfile as it is. Without an engine the test is skipped, in CI it fails."""
    if missing := available():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    subprocess.run(["docker", "build", "-q", "-t", IMAGE, str(ROOT)], check=True, stdout=subprocess.DEVNULL)
    return IMAGE


@contextmanager
def host_address() -> Iterator[str]:
    """This machine's address on a network of the tests' own, reachable from the containers of every network.

    The engine's own bridge does not always name its gateway: dockerd 20.10 leaves it out until its second start.
    """
    network = f"force-submit-tests-{os.getpid()}"
    subprocess.run(["docker", "network", "create", network], check=True, stdout=subprocess.DEVNULL)
    try:
        (description,) = json.loads(subprocess.check_output(["docker", "network", "inspect", network]))
        yield description["IPAM"]["Config"][0]["Gateway"]
    finally:
        subprocess.run(["docker", "network", "rm", network], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def host(image: str) -> Iterator[str]:  # noqa: ARG001 - the engine must be there
    with host_address() as address:
        yield address


@pytest.fixture
def engine(host: str) -> Iterator[Engine]:
    engine = Engine(host)
    yield engine
    engine.close()
