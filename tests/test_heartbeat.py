"""The monitor at HEARTBEAT_URL is told of every run, and can do none any harm."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from app.simulator import Simulator
from tests.support import Result, Run, Simulate, expired

SECRET = "5ecret-0f-the-m0nitor"


class Monitor:
    """What a monitor was told: paths, and the JSON that came with them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.told: list[tuple[str, Any]] = []


@contextmanager
def monitoring(answer: bytes | None) -> Iterator[Monitor]:
    """A monitor that answers everything with these bytes; None lets the first caller wait for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            monitor.told.append((self.path, json.loads(body) if body else None))
            self.close_connection = True
            if answer is None and len(monitor.told) == 1:
                self.connection.recv(1)  # until the caller gives up
            self.wfile.write(answer or status("200 OK"))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        monitor = Monitor(f"http://127.0.0.1:{server.server_port}/ping/{SECRET}")
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield monitor
        server.shutdown()


def status(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", "Content-Length: 0", *headers, "\r\n"]).encode()


def silent_about_it(result: Result) -> bool:
    """Whether the URL, which lets anybody report runs, is in no output."""
    return SECRET.encode() not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("world", "code"), [({}, 0), ({"faults": ["500-after"]}, 65), ({"faults": ["403"]}, 77), ({"not_due": 120}, 0)]
)
def test_the_monitor_is_told_of_the_start_and_of_the_end_with_the_summary(
    simulate: Simulate, run: Run, world: dict[str, Any], code: int
) -> None:
    with monitoring(status("200 OK")) as monitor:
        result = run(simulate(**world), HEARTBEAT_URL=monitor.url)
    assert result.code == code
    assert monitor.told == [(f"/ping/{SECRET}/start", None), (f"/ping/{SECRET}/{code}", result.summary)]
    assert silent_about_it(result)


@pytest.mark.parametrize("end", ["", "/", "?rid=7&x=%2F", "/?rid=7&x=%2F"])
def test_the_query_of_the_url_is_kept(simulate: Simulate, run: Run, end: str) -> None:
    with monitoring(status("200 OK")) as monitor:
        run(simulate(exams=0), HEARTBEAT_URL=monitor.url + end)
    query = end.removeprefix("/")
    assert [path for path, _ in monitor.told] == [f"/ping/{SECRET}/start{query}", f"/ping/{SECRET}/0{query}"]


def test_the_monitor_is_told_of_settings_that_are_wrong(simulate: Simulate, run: Run) -> None:
    with monitoring(status("200 OK")) as monitor:
        result = run(simulate(), HEARTBEAT_URL=monitor.url, MAX_ATTEMPTS="many")
    assert result.code == 78
    assert [path for path, _ in monitor.told] == [f"/ping/{SECRET}/78"]


def test_the_monitor_is_told_of_output_that_cannot_be_written(simulate: Simulate, run: Run, tmp_path: Path) -> None:
    with monitoring(status("200 OK")) as monitor:
        result = run(simulate(), HEARTBEAT_URL=monitor.url, OUTPUT_DIR=str(tmp_path / "missing"))
    assert [path for path, _ in monitor.told] == [f"/ping/{SECRET}/{result.code}"]
    assert result.code == 74


def is_unharmed(simulator: Simulator, result: Result, complaints: int = 2) -> bool:
    """Whether all exams are reported, and the log complains about the monitor without its URL."""
    assert silent_about_it(result)
    assert len(result.events("heartbeat")) == complaints
    return result.code == 0 and sorted(result.exam_ids) == sorted(expired(simulator))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(status("500 Internal Server Error"), id="500"),
        pytest.param(status("404 Not Found"), id="404"),
        pytest.param(status("302 Found", f"Location: http://127.0.0.1:1/{SECRET}"), id="redirect"),
        pytest.param(b"\r\n", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no-http"),
        pytest.param(status("503 Unavailable", "no header", "Retry-After: 3600"), id="bad-header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOK", id="cut"),
    ],
)
def test_a_monitor_that_answers_badly_changes_nothing(simulate: Simulate, run: Run, answer: bytes) -> None:
    simulator = simulate(exams=150)
    with monitoring(answer) as monitor:
        result = run(simulator, HEARTBEAT_URL=monitor.url, LOG_LEVEL="DEBUG")
    assert is_unharmed(simulator, result)
    assert len(monitor.told) == 2


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_monitor_that_is_not_reached_changes_nothing(simulate: Simulate, run: Run, scheme: str, host: str) -> None:
    simulator = simulate(exams=150)
    assert is_unharmed(simulator, run(simulator, HEARTBEAT_URL=f"{scheme}://{host}/ping/{SECRET}"))


def test_a_monitor_that_does_not_answer_only_takes_time(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=150)
    with monitoring(None) as monitor:
        assert is_unharmed(simulator, run(simulator, HEARTBEAT_URL=monitor.url), complaints=1)
    assert len(monitor.told) == 2
