"""What a run logs on stderr: complete lines that no server can forge, and no stderr that fails ever stops a run."""

import json
import os
import re
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.commands import run as job
from app.signals import Stop
from app.simulator import Simulator
from tests.support import Jobs, Run, Serve, Simulate, configured, expired, ids, rows_of

LINE = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z) (DEBUG  |INFO   |WARNING|ERROR  ) \S.*")
HOSTILE = "\n2026-01-01T00:00:00.000Z INFO    Done\r\x1b[2J\x1b]0;title\x07\x00\x85\u2028\u202e{'}"


def complete(simulator: Simulator, csv: bytes) -> bool:
    """Whether a CSV holds every exam that the server changed exactly once, and no line of a log."""
    return sorted(ids(csv)) == sorted(expired(simulator))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_a_text_log_has_one_line_per_event_each_with_its_time_in_utc(simulate: Simulate, run: Run, zone: str) -> None:
    start = datetime.now(UTC).replace(microsecond=0)
    simulator = simulate(exams=20, limit=10, faults=["503", "401", "500-after", "malformed-records"])
    result = run(simulator, LOG_FORMAT="text", LOG_LEVEL="DEBUG", TZ=zone)
    assert result.code == 65
    matches = [LINE.fullmatch(line) for line in result.stderr.decode().splitlines()]
    times = [datetime.fromisoformat(match[1]) for match in matches if match]
    assert len(times) == len(matches) > 8
    times = [start, *times, datetime.now(UTC)]
    assert times == sorted(times)


def test_a_json_log_has_one_object_per_line(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=20, limit=10, faults=["503", "401", "500-after", "malformed-records"])
    result = run(simulator, LOG_LEVEL="DEBUG")
    assert all({"time", "level", "event", "message"} <= entry.keys() for entry in result.log)
    assert {entry["level"] for entry in result.log} == {"debug", "info", "warning", "error"}
    assert {entry["event"] for entry in result.log} >= {
        "start",
        "token",
        "call",
        "retry",
        "response_lost",
        "unexpected_response",
        "end",
    }
    assert result.stderr.isascii()
    assert result.log[-1]["event"] == "end"


@pytest.mark.parametrize(
    ("level", "levels"),
    [
        ("DEBUG", {"debug", "info", "warning", "error"}),
        ("INFO", {"info", "warning", "error"}),
        ("WARNING", {"warning", "error"}),
        ("ERROR", {"error"}),
    ],
)
def test_a_log_holds_its_level_and_what_is_more_severe(
    simulate: Simulate, run: Run, level: str, levels: set[str]
) -> None:
    simulator = simulate(exams=20, limit=10, faults=["503", "500-after"])
    assert {entry["level"] for entry in run(simulator, LOG_LEVEL=level).log} == levels


def test_a_good_run_is_silent_where_only_errors_count(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=5)
    result = run(simulator, LOG_LEVEL="ERROR")
    assert (result.code, result.stderr) == (0, b"")
    assert complete(simulator, result.stdout)


OAUTH_ERROR = json.dumps({"error": HOSTILE, "error_description": f"{HOSTILE} again"}).encode()
RECORDS = json.dumps({"additionalExamsToExpire": False, "expiredExams": [{HOSTILE: 1}]}).encode()
HEADER_SAFE = "\x1b[2J\x07\x85\t{'}"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("setting", "status", "headers", "body"),
    [
        ("AUTH_URL", 401, {}, OAUTH_ERROR),
        ("AUTH_URL", 418, {"Content-Type": f"text/{HEADER_SAFE}"}, b""),
        ("PROCTOR_URL", 418, {"Content-Type": f"text/{HEADER_SAFE}"}, b""),
        ("PROCTOR_URL", 302, {"Location": f"https://sso.example.org/{HEADER_SAFE}"}, b""),
        ("PROCTOR_URL", 200, {"Content-Type": "application/json"}, RECORDS),
    ],
)
def test_a_server_can_neither_forge_lines_nor_steer_a_terminal(
    simulate: Simulate,
    run: Run,
    serve: Serve,
    form: str,
    setting: str,
    status: int,
    headers: dict[str, str],
    body: bytes,
) -> None:
    simulator = simulate()
    url = serve(status, headers, body)
    settings: dict[str, str] = {setting: url, "LOG_LEVEL": "DEBUG"}
    events = len(run(simulator, **settings).log)
    stderr = run(simulator, **settings, LOG_FORMAT=form).stderr.decode()
    lines = stderr.splitlines()
    assert len(lines) == stderr.count("\n") == events
    assert all(character.isprintable() for line in lines for character in line)
    assert form == "json" or all(LINE.fullmatch(line) for line in lines)


@pytest.fixture
def without_stderr(tmp_path: Path) -> dict[str, str]:
    """Popen options for a job whose stderr is closed."""
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@" 2>&-\n')
    launcher.chmod(0o755)
    return {"executable": str(launcher)}


def broken(how: str, stack: ExitStack) -> int:
    """A file descriptor that accepts no byte."""
    if how == "full":
        return stack.enter_context(open("/dev/full", "wb")).fileno()
    reader, writer = os.pipe()
    os.close(reader)
    stack.callback(os.close, writer)
    return writer


@pytest.mark.parametrize("how", ["closed", "full", "without a reader"])
@pytest.mark.parametrize("to_volume", [False, True])
def test_a_stderr_that_fails_does_not_stop_a_run(
    simulate: Simulate, jobs: Jobs, tmp_path: Path, without_stderr: dict[str, str], how: str, to_volume: bool
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    simulator = simulate(exams=50, limit=10, faults=["ok", "503", "401"])
    settings = {**simulator.settings(), "MAX_WAIT": "0", "LOG_LEVEL": "DEBUG"}
    if to_volume:
        settings["OUTPUT_DIR"] = str(volume)
    with ExitStack() as stack:
        options: dict[str, Any] = without_stderr if how == "closed" else {"stderr": broken(how, stack)}
        result = jobs.run(settings, **options)
    assert result.code == 0
    csv = next(volume.glob("*.csv")).read_bytes() if to_volume else result.stdout
    assert complete(simulator, csv)
    assert len(rows_of(csv)) == 50
    assert result.stdout == b"" or not to_volume


@pytest.mark.parametrize("arguments", [["check"], ["demo", "--exams", "3"], ["--version"], ["nonsense"]])
def test_a_stderr_that_is_closed_does_not_stop_any_command(
    simulate: Simulate, jobs: Jobs, without_stderr: dict[str, str], arguments: list[str]
) -> None:
    result = jobs.run(simulate().settings(), *arguments, **without_stderr)
    assert result.code == (64 if arguments == ["nonsense"] else 0)
    assert b"WARNING" not in result.stdout
    assert b"usage" not in result.stdout


def test_a_stderr_that_nobody_reads_does_not_hold_up_a_run(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate(exams=400, limit=1)
    reader, writer = os.pipe()
    settings = {**simulator.settings(), "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json"}
    result = jobs.run(settings, stderr=writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        log = pipe.read()
    assert len(log) > 60_000
    assert "end" not in [json.loads(line)["event"] for line in log.splitlines()]
    assert result.code == 0
    assert complete(simulator, result.stdout)
    assert len(result.exam_ids) == 400


def test_a_long_run_logs_its_progress_now_and_then(
    simulate: Simulate, volume: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.expire._PROGRESS_EVERY", 0.1)
    simulator = simulate(exams=20, limit=1, latency=0.02)
    with caplog.at_level("INFO", "app"):
        assert job.run(configured(volume, **simulator.settings()), Stop()) == 0
    logged = [vars(record)["fields"] for record in caplog.records if vars(record)["event"] == "progress"]
    assert len(logged) >= 2
    assert all(later - earlier >= 0.1 for earlier, later in pairwise([0, *(fields["seconds"] for fields in logged)]))
    assert all(0 < fields["exams"] == fields["calls"] < 20 for fields in logged)
