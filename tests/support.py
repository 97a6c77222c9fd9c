"""What the tests share: the job as a process of its own, what it printed, and what the server's record says."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.settings import Settings, read
from app.simulator import Simulator
from tests.embedded import EmbeddedProctor

ROOT = Path(__file__).parent.parent
HEADER = ["assessmentKey", "assessmentId", "examId", "studentId", "updatedExamStatus"]
HEADER_LINE = ",".join(HEADER).encode() + b"\r\n"
QUICK = {"MAX_WAIT": "0", "READ_TIMEOUT": "30", "LOG_FORMAT": "json"}
PATIENCE = 60  # seconds after which a process that hangs is ended, so that the suite goes on


Simulate = Callable[..., EmbeddedProctor]
"""Starts an embedded Proctor, with the fields of `Scenario`."""


@dataclass(frozen=True)
class Result:
    """How a process ended, and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the CSV on stdout."""
        return rows_of(self.stdout)

    @property
    def exam_ids(self) -> list[str]:
        return ids(self.stdout)

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
    """The rows of a CSV, which must be complete and have the header that is promised."""
    assert content.endswith(b"\r\n")
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    assert header == HEADER
    return [dict(zip(header, row, strict=True)) for row in rows]


def ids(csv: bytes) -> list[str]:
    """The ids of the exams in a CSV."""
    return [row["examId"] for row in rows_of(csv)]


def ids_in(volume: Path) -> list[str]:
    """The ids of the exams in all CSVs of a volume, sorted."""
    return sorted(exam for path in volume.glob("*.csv") for exam in ids(path.read_bytes()))


def files_in(volume: Path) -> dict[str, bytes]:
    """The files of a volume but the lock, by name."""
    return {path.name: path.read_bytes() for path in volume.iterdir() if path.name != ".lock"}


def expired(simulator: Simulator) -> list[str]:
    """The ids of all exams that the server changed, by its own record."""
    return [exam_id for call in simulator.record for exam_id in call["expired"]]


def delivered(simulator: EmbeddedProctor) -> list[str]:
    """The ids of the exams that the server changed and reported in a response that was sent completely."""
    simulator.wait_idle()
    return [exam_id for call in simulator.record if call["delivered"] for exam_id in call["expired"]]


def configured(directory: Path, **values: str) -> Settings:
    """The settings of a run in this process, without waits: into `directory`, and to a server that is not there."""
    basis = {
        **dict.fromkeys(("PROCTOR_URL", "AUTH_URL"), "http://127.0.0.1:1"),
        **dict.fromkeys(("AUTH_CLIENT_ID", "AUTH_CLIENT_SECRET", "AUTH_USERNAME", "AUTH_PASSWORD"), "x"),
        "CLIENT_NAME": "SBAC_PT",
        "MAX_WAIT": "0",
        "OUTPUT_DIR": str(directory),
    }
    nowhere = directory / "none"
    return read({**basis, **values}, secrets_dir=nowhere, dotenv=nowhere).settings()


class Jobs:
    """Runs `python -m app` in an empty directory, with no environment but the settings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, settings: dict[str, str], *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the job and return its process, stdout and stderr as pipes unless given."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",  # a job whose files may not grow would leave bytecode that is cut off
            **settings,
        }
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

    def read_until(self, process: subprocess.Popen[bytes], event: str) -> dict[str, Any]:
        """Read the JSON log up to an event. The process needs `bufsize=0`, so that no line after it is lost."""
        assert process.stderr
        for line in process.stderr:
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == event:
                return entry
        raise AssertionError(f"the process ended without the event {event!r}")

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


Run = Callable[..., Result]
"""Runs the job against an embedded Proctor: `run(simulator, MAX_ATTEMPTS="2")`."""

Serve = Callable[[int, dict[str, str], bytes], str]
"""Starts a server that responds to every request with the same status, headers and body; returns its URL."""


def output_of(command: list[str], *, typed: str | None = None, **options: Any) -> str:
    """Run a command that must succeed, with what is typed into it; returns its stdout. Options are subprocess.run's."""
    result: subprocess.CompletedProcess[str] = subprocess.run(
        command, input=typed, capture_output=True, text=True, check=False, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout
