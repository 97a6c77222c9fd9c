"""Real gateways between the job and the embedded Proctor, each on a port of its own on loopback."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.gateways.configurations import FORWARD, PLANS, Certificate, Plan, Site

_TRIES = 1200  # to connect to a gateway that starts, with a pause of PAUSE seconds between two
_PAUSE = 0.05
_PATIENCE = 10  # seconds for a gateway to end, after which it is killed
_ports = count(20_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))
_PATH = os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin"])  # where Debian puts servers


@dataclass(frozen=True)
class Gateway:
    """A gateway that is running, and the port that it passes requests to."""

    name: str
    port: int
    target: int
    tls: bool

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        """The settings that lead expire requests through it; a reverse proxy gets no token requests."""
        if self.name not in FORWARD:
            return {"PROCTOR_URL": self.url}
        return {"PROCTOR_URL": f"http://127.0.0.1:{self.target}", "HTTP_PROXY": self.url}


class Gateways:
    """Starts gateways, and ends them."""

    def __init__(self, directory: Path, ending: list[subprocess.Popen[bytes]]) -> None:
        """`ending` receives the processes that have been asked to end, as squid takes two seconds to do so."""
        self._directory = directory
        self._ending = ending
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, target: int, **options: Any) -> Gateway:
        """Start a gateway that passes requests to a port; the options are those of its function in `configurations`.

        Skips the test where the gateway is not installed; in CI it fails.
        """
        directory = self._directory / f"{name}-{len(self._processes)}"
        directory.mkdir()
        port = _free_port()
        plan = PLANS[name](Site(port, directory, target), **options)
        for file, content in plan.files.items():
            (directory / file).write_text(content)
        self._wait(self._spawn(plan, directory), port, directory)
        return Gateway(name, port, target, "tls" in options)

    def _spawn(self, plan: Plan, directory: Path) -> subprocess.Popen[bytes]:
        binary = shutil.which(plan.command[0], path=_PATH)
        if not binary:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{plan.command[0]} is not installed")
        with (directory / "output").open("wb") as output:
            process = subprocess.Popen(
                [binary, *plan.command[1:]], cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._processes.append(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
        """Wait until a gateway accepts connections."""
        for _ in range(_TRIES):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                try:
                    process.wait(_PAUSE)
                except subprocess.TimeoutExpired:
                    continue
            break
        pytest.fail(f"{process.args!r} does not listen: {(directory / 'output').read_text()}")

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        self._ending += self._processes


def _free_port() -> int:
    """A port that no other worker takes, and the system gives to nobody, until the gateway listens on it."""
    for port in _ports:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("unreachable")


@pytest.fixture(scope="session")
def ending() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Wait, at the end of all tests, for the gateways to end."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def gateways(tmp_path: Path, ending: list[subprocess.Popen[bytes]]) -> Iterator[Gateways]:
    gateways = Gateways(tmp_path, ending)
    yield gateways
    gateways.close()


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on loopback where nothing listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@dataclass(frozen=True)
class Authority:
    """A certificate authority: the file with its certificate, and a certificate that it issued for 127.0.0.1."""

    file: str
    certificate: Certificate


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    file, chain, key, combined = (
        str(tmp_path / f"{name}.pem") for name in ("authority", "chain", "key", "chain-and-key")
    )
    authority.cert_pem.write_to_path(file)
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    issued.private_key_and_cert_chain_pem.write_to_path(combined)
    return Authority(file, Certificate(chain, key, combined, client_authority=file))
