"""What the tests share: an embedded Proctor, and the job as a process of its own."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from app.simulator import Simulator, World

pytest_plugins = ["tests.containers.engine"]

ROOT = Path(__file__).parent.parent
HEADER = ["assessmentKey", "assessmentId", "examId", "studentId", "updatedExamStatus"]
QUICK = {"MAX_WAIT": "0", "READ_TIMEOUT": "30", "LOG_FORMAT": "json"}
PATIENCE = 60  # seconds after which a process that hangs is ended, so that the suite goes on


def pytest_configure() -> None:
    """Have no signal ignored in the jobs, as is what a shell starts with `&` or `nohup`: a handler survives no exec."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@dataclass(frozen=True)
class Result:
    """How a process ended, and what it said."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the CSV on stdout."""
        return rows_of(self.stdout)

    @property
    def exam_ids(self) -> list[str]:
        return [row["examId"] for row in self.rows]

    @property
    def log(self) -> list[dict[str, Any]]:
        """The events on stderr, with LOG_FORMAT=json."""
        return [json.loads(line) for line in self.stderr.splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log if event["event"] == name]

    @property
    def summary(self) -> dict[str, Any]:
        """The summary in the last event of a run."""
        summary = self.events("end")[-1]["summary"]
        assert isinstance(summary, dict)
        return summary

    @property
    def message(self) -> str:
        """The last thing that the operator reads."""
        return str(self.log[-1]["message"])


def rows_of(content: bytes) -> list[dict[str, str]]:
    """The rows of a CSV, which must be whole and have the header that is promised."""
    assert content.endswith(b"\r\n")
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    assert header == HEADER
    return [dict(zip(header, row, strict=True)) for row in rows]


def expired(simulator: Simulator) -> list[str]:
    """The ids of all exams that the server changed, by its own record."""
    return [exam_id for call in simulator.record for exam_id in call["expired"]]


def delivered(simulator: Simulator) -> list[str]:
    """The ids of the exams that the server changed and reported in an answer that went out whole."""
    return [exam_id for call in simulator.record if call["delivered"] for exam_id in call["expired"]]


@pytest.fixture
def simulate() -> Iterator[Callable[..., Simulator]]:
    """Start embedded Proctors: `simulate(exams=250, faults=["503"])`, with the fields of `World`."""
    with ExitStack() as stack:

        def start(**world: Any) -> Simulator:
            certificate = world.pop("certificate", None)
            simulator = stack.enter_context(Simulator(World(**world), certificate=certificate))
            stack.callback(simulator.release.set)
            return simulator

        yield start


class Jobs:
    """Runs `python -m app` in an empty directory, with no environment but the settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, settings: dict[str, str], *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the job and return its process, stdout and stderr as pipes unless told otherwise."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "PYTHONPATH": str(ROOT), **settings}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments],
            env={name: value for name, value in environment.items() if value is not None},
            cwd=self.directory,
            **{**streams, **options},
        )
        self._processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[bytes]) -> Result:
        """Wait for the end of a job."""
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return Result(process.returncode, stdout or b"", stderr or b"")

    def run(self, settings: dict[str, str], *arguments: str, **options: Any) -> Result:
        """Run the job from start to end."""
        return self.finish(self.start(settings, *arguments, **options))

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


Serve = Callable[[int, dict[str, str], bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that answer every request with the same status, headers and body; returns the URL of one."""
    with ExitStack() as stack:

        def start(status: int, headers: dict[str, str], body: bytes) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.rfile.read(int(self.headers["Content-Length"] or 0))
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

                do_POST = do_GET  # noqa: N815

                def log_message(self, *_: object) -> None:
                    pass

            server = stack.enter_context(HTTPServer(("127.0.0.1", 0), Handler))
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield start


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
def run(jobs: Jobs) -> Callable[..., Result]:
    """Run the job against a simulator, without waits and with JSON logs: `run(simulator, MAX_ATTEMPTS="2")`."""

    def run(simulator: Simulator, *arguments: str, **settings: str) -> Result:
        return jobs.run({**simulator.settings(), **QUICK, **settings}, *arguments)

    return run
