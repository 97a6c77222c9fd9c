"""`history` shows what the runs on a volume did, and fails where the last one did or is too long ago."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import Jobs, Run, Simulate, expired

FAR_OFF = """{"ended": null, "exit_code": 0, "calls": 1, "exams": {}, "client_name": "SBAC_PT",
 "started": "0001-01-01T00:00:00+10:00"}"""


@pytest.fixture
def history(jobs: Jobs, volume: Path) -> Callable[..., tuple[int, list[str]]]:
    """Run `history` on the volume; returns its exit code and lines."""

    def history(*arguments: str) -> tuple[int, list[str]]:
        result = jobs.run({}, "history", str(volume), *arguments)
        assert result.stderr == b""
        return result.code, result.stdout.decode().splitlines()

    return history


History = Callable[..., tuple[int, list[str]]]


def leave(volume: Path, hours_ago: float, **changes: Any) -> None:
    """Write the summary of a run that began so many hours ago and took 90 seconds."""
    began = datetime.now(UTC) - timedelta(hours=hours_ago)
    summary = {
        "client_name": "SBAC_PT",
        "started": began.isoformat(),
        "ended": (began + timedelta(seconds=90)).isoformat(),
        "outcome": "drained",
        "exit_code": 0,
        "message": "Proctor has no more.",
        "exams": {"expired": 0, "completed": 0, "unknown": 0},
        "calls": 1,
        "lost": [],
    }
    name = f"expired_exams_{changes.get('client_name', 'SBAC_PT')}_{began:%Y%m%dT%H%M%SZ}.json"
    (volume / name).write_text(json.dumps(summary | changes))


def test_each_run_is_a_line_with_what_the_server_says_it_did(
    simulate: Simulate, run: Run, volume: Path, history: History
) -> None:
    small, large = simulate(exams=20), simulate(exams=250, faults=["503"])
    for simulator in small, large:
        assert run(simulator, OUTPUT_DIR=str(volume)).code == 0
    code, (_, *lines) = history()
    assert code == 0
    for line, simulator in zip(lines, (small, large), strict=True):
        changed, answered = len(expired(simulator)), sum(bool(call["expired"]) for call in simulator.record)
        completed = sum(int(exam.rpartition("-")[2], 16) % 10 == 7 for exam in expired(simulator))
        told = ["SBAC_PT", "drained", "0", str(changed - completed), str(completed), "0", str(answered), "0"]
        assert line.split()[2:10] == told
    bars = [line.count("#") for line in lines]
    assert bars == [3, 30]  # 20 of 250, rounded up, and the most there were


def test_the_newest_run_stands_last_whatever_the_files_are_called(volume: Path, history: History) -> None:
    for hours, client in (50, "B"), (2, "A"), (26, "C"):
        leave(volume, hours, client_name=client)
    code, (_, *lines) = history()
    assert (code, [line.split()[2] for line in lines]) == (0, ["B", "C", "A"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exit_code": 65, "message": "Lost."}, "ended with exit code 65. Lost."),
        ({"exit_code": 143, "outcome": "interrupted"}, "ended with exit code 143."),
        ({"exit_code": None, "ended": None, "calls": None, "outcome": "killed"}, "was killed."),
    ],
)
def test_a_last_run_that_did_not_end_well_fails(
    volume: Path, history: History, changes: dict[str, Any], told: str
) -> None:
    leave(volume, 26, **changes)
    code, lines = history()
    assert code == 1
    assert told in lines[-1]
    leave(volume, 2)
    assert history()[0] == 0


def test_each_client_has_a_last_run(volume: Path, history: History) -> None:
    leave(volume, 3, client_name="BAD", exit_code=77)
    leave(volume, 2, client_name="GOOD")
    code, lines = history()
    assert code == 1
    assert lines[-1].startswith("The last run for BAD ended with exit code 77.")


def test_a_killed_run_knows_its_client_by_the_names_of_its_files_alone(volume: Path, history: History) -> None:
    leave(volume, 3, client_name="SBAC_PT", exit_code=None, outcome="killed")
    leave(volume, 2, client_name="SBAC.PT")
    assert history()[0] == 0


def test_a_last_run_that_is_too_long_ago_fails(volume: Path, history: History) -> None:
    leave(volume, 27)
    assert history()[0] == history("--max-age", "27")[0] == 0
    code, lines = history("--max-age", "26")
    assert code == 1
    assert "27.0 hours ago" in lines[-1]


def test_a_volume_without_any_run_fails(volume: Path, history: History) -> None:
    (volume / "expired_exams_SBAC_PT_20260401T020000Z.csv.partial").touch()
    code, lines = history()
    assert (code, lines) == (1, [f"No run has left its summary in {volume}."])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"started": 1}', FAR_OFF, "\udcff", "[" * 100_000])
def test_what_is_no_summary_is_named_and_left_out(volume: Path, history: History, text: str) -> None:
    leave(volume, 2)
    (volume / "expired_exams_SBAC_PT_20260401T020000Z.json").write_bytes(text.encode(errors="surrogateescape"))
    (volume / "other.json").write_text(text, errors="surrogateescape")
    code, (first, _, *lines) = history()
    assert code == 0
    assert first.startswith("expired_exams_SBAC_PT_20260401T020000Z.json is left out")
    assert len(lines) == 1


def test_what_a_server_said_does_not_steer_the_terminal(volume: Path, history: History) -> None:
    leave(volume, 2, exit_code=76, message="It answered \x1b[2J\r\nAll is well.")
    code, lines = history()
    assert code == 1
    assert r"\x1b[2J\r\nAll is well." in lines[-1]


@pytest.mark.parametrize("arguments", [(), ("missing",), (".", "--max-age", "long"), (".", "--max-age", "nan")])
def test_wrong_usage_is_said_in_a_line(jobs: Jobs, arguments: tuple[str, ...]) -> None:
    result = jobs.run({}, "history", *arguments)
    assert result.code == 64
    assert b"python -m app history" in result.stderr.splitlines()[-1]
