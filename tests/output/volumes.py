"""What the tests of the output share: what is on a volume, what killed runs leave there, and a monitor."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from app.model import Exam
from app.simulator import Simulator
from tests.embedded import EmbeddedProctor
from tests.promise import holds
from tests.support import HEADER_LINE, PATIENCE, QUICK, ROOT, Jobs, Result, ids

PLAIN = b"(SBAC_PT)SBAC-Perf-ELA-4,SBAC-Perf-ELA-4,0000002a-5bac-4000-8000-000000000001,100001,expired\r\n"
QUOTED = b'"a ""quoted"", k\xc3\xa9y\r\n\r\nover lines\r",,0000002a-5bac-4000-8000-000000000002,100002,"x,\r\n"\r\n'
ROW = Exam("k" * 48, "i", "e", "7", "expired")
"""64 bytes: 64 such rows fill a page of 4 KiB."""


def kill_in_a_call(simulator: EmbeddedProctor, jobs: Jobs, volume: Path, **settings: str) -> None:
    """Kill a run on a volume while its call is held, and let the call end."""
    timeouts = {"READ_TIMEOUT": "6", "CONNECT_TIMEOUT": "1"}
    killed = jobs.start({**simulator.settings(), **QUICK, **timeouts, "OUTPUT_DIR": str(volume), **settings})
    assert simulator.held.wait(PATIENCE)
    killed.kill()
    jobs.finish(killed)
    simulator.release.set()


def kill_after(event: str, simulator: EmbeddedProctor, jobs: Jobs, volume: Path, **settings: str) -> None:
    """Kill a run on a volume once it has logged an event."""
    killed = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), **settings}, bufsize=0)
    jobs.read_until(killed, event)
    killed.kill()
    jobs.finish(killed)


def launcher(directory: Path, line: str) -> Path:
    """As Popen's `executable`: a shell that runs `line`, in which "$@" is the job."""
    script = directory / "launcher"
    script.write_text(f'#!/bin/sh\nset -- "{sys.executable}" "$@"\n{line}\n')
    script.chmod(0o755)
    return script


def without_privileges(directory: Path) -> Path:
    """As Popen's `executable`: the job, for which permissions count even if root starts it."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may do anything")
    obedient = "" if os.geteuid() else "setpriv --bounding-set=-dac_override,-dac_read_search"
    return launcher(directory, f'exec {obedient} "$@"')


def sabotaged(directory: Path, code: str) -> dict[str, str]:
    """The environment of a job that first executes `code`, which breaks what the job uses of the system.

    `code` finds `os`, `io`, `refuse` (raises EIO), and `is_csv` (whether a descriptor is that of a CSV with rows).
    """
    (directory / "sitecustomize.py").write_text(
        "import errno, io, os\n"
        "def refuse(*_, **__):\n"
        "    raise OSError(errno.EIO, os.strerror(errno.EIO))\n"
        "def is_csv(descriptor):\n"
        "    name = os.readlink(f'/proc/self/fd/{descriptor}')\n"
        "    return '.csv' in name and os.fstat(descriptor).st_size > 100\n"
        f"{code}\n"
    )
    return {"PYTHONPATH": f"{directory}:{ROOT}"}


def only(volume: Path, suffix: str) -> Path:
    """The one file of a run with that suffix."""
    (path,) = volume.glob(f"expired_exams_*{suffix}")
    return path


def unwritten(result: Result) -> list[str]:
    """The ids in the rows that went to the log instead of the CSV."""
    return ids(HEADER_LINE + "".join(f"{event['row']}\r\n" for event in result.events("unwritten_row")).encode())


def instant(text: str) -> datetime:
    """A time in a summary, a log or the server's record."""
    return datetime.fromisoformat(text)


def nothing_is_expired(simulator: Simulator, result: Result) -> bool:
    """Whether the run ended for its output before it asked for a token."""
    return result.code == 74 and not simulator.token_requests and not simulator.record


def each_exam_is_in_the_csv_or_in_the_log(simulator: Simulator, result: Result, csv: bytes) -> bool:
    """Whether a run that could not write its second batch lost none of its rows, and reported what it must."""
    missing = unwritten(result)
    assert missing
    assert result.code == 74
    assert result.summary["outcome"] == "failed"
    assert len(simulator.record) == 2  # no further call
    (window,) = result.summary["lost"]  # the log may be lost as well
    assert holds(window, simulator.record[1]["changed"])
    assert f"Rows missing from it: {len(missing)}." in result.message
    assert "Traceback" not in result.stderr.decode()
    return sorted(ids(csv) + missing) == sorted(exam for call in simulator.record for exam in call["expired"])


def leave(volume: Path, number: int, text: bytes, lost: list[dict[str, str]] | None = None) -> str:
    """Put a CSV there as a killed run leaves it, with a summary if it has `lost`; return the name without suffix."""
    stem = f"expired_exams_SBAC_PT_20260401T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z"
    (volume / f"{stem}.csv.partial").write_bytes(text)
    if lost is not None:
        (volume / f"{stem}.json").write_text(json.dumps({"lost": lost}))
    return stem


def clean_up(simulator: Simulator, jobs: Jobs, volume: Path, **settings: str) -> Result:
    """Have a run clean up after killed ones, and end it as soon as it waits until their calls must have ended."""
    environment = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), **settings}
    process = jobs.start(environment, bufsize=0)
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if json.loads(line)["event"] == "earlier_call":
            process.send_signal(signal.SIGTERM)
    result = jobs.finish(process)
    return replace(result, stderr=b"".join(lines))


class Monitor:
    """A monitor for HEARTBEAT_URL, and what it received: the last part of each path."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.holds_end = False
        """Whether it leaves the ping of a run's end without a response until `release` is set."""
        self.held = Event()
        self.release = Event()
        self.url = ""


@contextmanager
def monitoring() -> Iterator[Monitor]:
    """Run a monitor."""
    monitor = Monitor()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            monitor.received.append(self.path.rpartition("/")[2])
            if monitor.holds_end and monitor.received[-1] != "start":
                monitor.held.set()
                monitor.release.wait()
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A job that was killed is gone."""

    with Server(("127.0.0.1", 0), Handler) as server:
        monitor.url = f"http://127.0.0.1:{server.server_port}/ping"
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield monitor
        monitor.release.set()
        server.shutdown()
