"""`history` shows the runs of a volume, and fails while anything about them is wrong or unresolved."""

import fcntl
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.output.volumes import without_privileges
from tests.support import PATIENCE, QUICK, Jobs, Run, Simulate, expired

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


def test_each_run_is_a_line_with_what_the_server_recorded(
    simulate: Simulate, run: Run, volume: Path, history: History
) -> None:
    small, large = simulate(exams=20), simulate(exams=250, faults=["503"])
    for simulator in small, large:
        assert run(simulator, OUTPUT_DIR=str(volume)).code == 0
    code, (_, *lines) = history()
    assert code == 0
    for line, simulator in zip(lines, (small, large), strict=True):
        changed, responses = len(expired(simulator)), sum(bool(call["expired"]) for call in simulator.record)
        completed = sum(int(exam.rpartition("-")[2], 16) % 10 == 7 for exam in expired(simulator))
        cells = ["SBAC_PT", "drained", "0", str(changed - completed), str(completed), "0", str(responses), "0"]
        assert line.split()[1:9] == cells
    bars = [line.count("#") for line in lines]
    assert bars == [3, 30]  # 20 of 250, rounded up, and the most there were


def test_the_newest_run_stands_last_whatever_the_files_are_called(volume: Path, history: History) -> None:
    for hours, client in (50, "B"), (2, "A"), (26, "C"):
        leave(volume, hours, client_name=client)
    code, (_, *lines) = history()
    assert (code, [line.split()[1] for line in lines]) == (0, ["B", "C", "A"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exit_code": 65, "message": "Lost."}, "ended with exit code 65. Lost."),
        ({"exit_code": 74, "outcome": "failed", "message": "Disk full."}, "ended with exit code 74. Disk full."),
        ({"exit_code": 143, "outcome": "interrupted"}, "ended with exit code 143."),
        ({"exit_code": None, "ended": None, "calls": None, "outcome": "killed"}, "was killed."),
    ],
)
def test_a_last_run_that_did_not_end_well_fails(
    volume: Path, history: History, changes: dict[str, Any], sentence: str
) -> None:
    leave(volume, 26, **changes)
    code, lines = history()
    assert code == 1
    assert sentence in lines[-1]
    assert lines[-1].endswith(" The next run that ends well clears this.")
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
    assert lines[-1].endswith(
        "Check the scheduler, and in the log of the job whether a later run failed before it could begin."
    )


def test_a_volume_without_any_run_fails(volume: Path, history: History) -> None:
    assert history() == (1, [f"There is no summary of a run in {volume}."])


@pytest.mark.parametrize("mode", [0o300, 0o600])
def test_a_directory_that_this_user_may_not_read_fails(jobs: Jobs, volume: Path, mode: int) -> None:
    (volume / "expired_exams_SBAC_PT_20260401T020000Z.csv.partial").touch()
    volume.chmod(mode)
    result = jobs.run({}, "history", str(volume), executable=without_privileges(jobs.directory))
    volume.chmod(0o700)
    assert (result.code, result.stderr) == (1, b"")
    assert f"{volume} belongs to user {os.geteuid()}".encode() in result.stdout


def test_a_very_first_run_that_is_under_way_is_fine(volume: Path, history: History) -> None:
    partial = volume / "expired_exams_SBAC_PT_20260401T020000Z.csv.partial"
    with partial.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert history() == (0, [f"{partial.name} belongs to a run that is under way."])


def test_a_run_that_was_killed_and_not_followed_by_another_fails(volume: Path, history: History) -> None:
    leave(volume, 26)
    name = "expired_exams_SBAC_PT_20260401T020000Z.csv.partial"
    (volume / name).touch()
    (volume / "expired_exams_copy.csv.partial").touch()  # no run's
    code, (_, _, line) = history()
    assert code == 1
    assert line.startswith(
        f"{name} belongs to a run that was killed, or could not write its summary. Run the job again"
    )
    leave(volume, 2)
    (newest,) = sorted(volume.glob("*.json"))[-1:]
    (volume / name).rename(newest.with_suffix(".csv.partial"))
    code, (_, _, _, line) = history()
    assert code == 1
    assert " belongs to a run that was killed, or could not rename it. " in line


def test_a_run_that_is_under_way_is_fine(simulate: Simulate, jobs: Jobs, volume: Path, history: History) -> None:
    leave(volume, 26)
    simulator = simulate(faults=["hold"])
    process = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    code, lines = history()
    assert code == 0
    assert lines[-1].endswith("belongs to a run that is under way.")
    process.kill()


WINDOWS = [
    {"start": f"2026-04-01T0{hour}:00:00.000Z", "end": f"2026-04-01T0{hour}:05:00.000Z", "reason": "reset"}
    for hour in (1, 2)
]
HOW = "recovered 42 rows into recovered.csv"


def resolved(window: dict[str, Any]) -> dict[str, Any]:
    return {**window, "resolved": {"how": HOW}}


def test_an_unresolved_window_fails_however_well_later_runs_went(volume: Path, history: History) -> None:
    leave(volume, 50, exit_code=65, lost=WINDOWS)
    leave(volume, 26)
    leave(volume, 2)
    code, lines = history()
    assert code == 1
    for window in WINDOWS:
        assert any(f"from {window['start']} to {window['end']} may be in no CSV (reset)" in line for line in lines)
    assert lines[-1] == f"Recover them: python -m app recover {volume}"


def test_no_run_clears_a_failure_with_an_unresolved_window(volume: Path, history: History) -> None:
    leave(volume, 2, exit_code=74, outcome="failed", message="Disk full.", lost=WINDOWS)
    assert history()[1][-1].endswith("Disk full.")


def test_one_resolved_window_does_not_hide_the_other(volume: Path, history: History) -> None:
    leave(volume, 50, exit_code=65, lost=[resolved(WINDOWS[0]), WINDOWS[1]])
    leave(volume, 2)
    code, lines = history()
    assert code == 1
    (unresolved,) = [line for line in lines if line.startswith("Unresolved")]
    assert WINDOWS[1]["start"] in unresolved
    assert any(WINDOWS[0]["start"] in line and line.endswith(f"{HOW}.") for line in lines)


def test_a_last_run_whose_windows_are_all_resolved_is_fine(volume: Path, history: History) -> None:
    leave(volume, 2, exit_code=65, lost=[*map(resolved, WINDOWS)])
    assert history()[0] == 0


def test_a_window_in_two_summaries_is_named_once(volume: Path, history: History) -> None:
    for hours_ago, code in (26, None), (2, 65):
        leave(volume, hours_ago, exit_code=code, outcome="killed", lost=WINDOWS[:1])
    code, lines = history()
    assert code == 1
    assert sum(line.startswith("Unresolved") for line in lines) == 1


def test_a_window_that_is_resolved_in_each_of_two_summaries_is_fine_and_named_once(
    volume: Path, history: History
) -> None:
    for hours_ago, code in (26, None), (2, 65):
        leave(volume, hours_ago, exit_code=code, lost=[*map(resolved, WINDOWS)])
    code, lines = history()
    assert code == 0
    starts = [window["start"] for window in WINDOWS]
    assert [start for line in lines for start in starts if start in line] == starts


def test_resolved_windows_do_not_excuse_another_failure(volume: Path, history: History) -> None:
    leave(volume, 2, exit_code=74, outcome="failed", lost=[resolved(WINDOWS[0])])
    assert history()[0] == 1


def test_the_real_loss_of_a_run_fails_until_it_is_resolved(
    simulate: Simulate, run: Run, volume: Path, history: History
) -> None:
    assert run(simulate(faults=["500-after"]), OUTPUT_DIR=str(volume)).code == 65
    (path,) = volume.glob("*.json")
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 0
    assert history()[0] == 1
    summary = json.loads(path.read_bytes())
    summary["lost"] = [*map(resolved, summary["lost"])]
    path.write_text(json.dumps(summary))
    assert history()[0] == 0


def test_a_summary_of_the_future_hides_no_later_failure(volume: Path, history: History) -> None:
    leave(volume, -24 * 365)
    leave(volume, 2, exit_code=69, outcome="failed")
    code, lines = history()
    assert code == 1
    assert any("is ignored: its run started in the future" in line for line in lines)
    assert lines[-1].startswith("The last run for SBAC_PT ended with exit code 69.")


def test_a_summary_of_the_future_is_no_sign_of_a_recent_run(volume: Path, history: History) -> None:
    leave(volume, -24 * 365)
    assert history()[0] == 1
    leave(volume, 30)
    assert history()[0] == 0
    assert history("--max-age", "26")[0] == 1


def test_a_window_in_a_summary_of_the_future_is_unresolved_as_well(volume: Path, history: History) -> None:
    leave(volume, -24 * 365, exit_code=65, lost=WINDOWS)
    leave(volume, 2)
    assert history()[0] == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"started": 1}', FAR_OFF, "\udcff", "[" * 100_000])
def test_a_summary_that_cannot_be_read_fails_as_it_may_list_a_window(volume: Path, history: History, text: str) -> None:
    leave(volume, 2)
    (volume / "expired_exams_SBAC_PT_20260401T020000Z.json").write_bytes(text.encode(errors="surrogateescape"))
    (volume / "other.json").write_text(text, errors="surrogateescape")
    code, (_, *lines) = history()
    assert code == 1
    assert lines[-1].startswith("expired_exams_SBAC_PT_20260401T020000Z.json is not a readable summary")
    assert len(lines) == 2


def test_a_summary_with_a_malformed_window_cannot_be_read_either(volume: Path, history: History) -> None:
    leave(volume, 2, lost=["x"])
    code, lines = history()
    assert code == 1
    assert "is not a readable summary" in lines[-1]


def test_what_a_server_sent_does_not_steer_the_terminal(volume: Path, history: History) -> None:
    leave(volume, 2, exit_code=76, message="It responded \x1b[2J\r\nAll is well.")
    code, lines = history()
    assert code == 1
    assert r"\x1b[2J\r\nAll is well." in lines[-1]


@pytest.mark.parametrize("arguments", [(), ("missing",), (".", "--max-age", "long"), (".", "--max-age", "nan")])
def test_wrong_usage_is_reported_in_one_line(jobs: Jobs, arguments: tuple[str, ...]) -> None:
    result = jobs.run({}, "history", *arguments)
    assert result.code == 64
    assert b"python -m app history" in result.stderr.splitlines()[-1]
