"""README, "You were paged", and deploy/recovery.md: from the alarm to a complete set of CSVs, with a real database."""

import json
import re
import resource
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.simulator import Simulator
from tests.documents import commands
from tests.output.volumes import kill_in_a_call
from tests.recover.database import Database
from tests.recover.runs import fill
from tests.recover.shell import Shell
from tests.support import QUICK, Jobs, Result, Run, Simulate, expired, ids_in, rows_of

_, RECOVER, ADD_ROWS = commands("README.md", "You were paged")  # the first is for containers, and run there

Type = Callable[[str], Result]
"""Types a block of commands, each of which must succeed for the next one to run."""


@pytest.fixture
def here(shell: Shell) -> Path:
    """Where the operator is."""
    return Path(shell("pwd").stdout.decode().strip())


@pytest.fixture
def output(here: Path) -> Path:
    (here / "output").mkdir()
    return here / "output"


@pytest.fixture
def type_block(shell: Shell) -> Type:
    return lambda block: shell(f"set -e\n{block}")


def assert_recovered(output: Path, shell: Shell, *simulators: Simulator) -> None:
    """All exams that Proctor changed are in the CSVs, each once, and the alarm is off."""
    assert ids_in(output) == sorted(exam for simulator in simulators for exam in expired(simulator))
    assert shell("python -m app history output").code == 0


def test_exams_of_lost_responses_are_recovered(
    simulate: Simulate, run: Run, output: Path, database: Database, shell: Shell, type_block: Type
) -> None:
    simulator = simulate(exams=350, faults=["ok", "reset-after", "504-after"])
    assert run(simulator, OUTPUT_DIR=str(output)).code == 65
    assert shell("python -m app history output").code == 1
    fill(database, [simulator])
    result = type_block(RECOVER)
    assert result.code == 0, result.stderr
    assert_recovered(output, shell, simulator)
    assert type_block(RECOVER.partition("\n")[0]).code == 0  # once more


def test_a_run_that_stopped_early_is_run_again_and_its_exams_are_recovered(
    simulate: Simulate, run: Run, output: Path, database: Database, shell: Shell, type_block: Type
) -> None:
    simulator = simulate(exams=350, faults=["ok", "reset-after", "cut-body"])
    # The second run waits as long as both.
    settings = {"OUTPUT_DIR": str(output), "READ_TIMEOUT": "5", "CONNECT_TIMEOUT": "1"}
    stopped = run(simulator, **settings, MAX_LOST_RESPONSES="1")
    assert (stopped.code, "more than MAX_LOST_RESPONSES" in stopped.message) == (65, True)
    assert any("Reason: " in event["message"] for event in stopped.events("response_lost"))
    assert run(simulator, **settings).code == 0
    assert shell("python -m app history output").code == 1
    fill(database, [simulator])
    assert type_block(RECOVER).code == 0
    assert_recovered(output, shell, simulator)


def test_rows_of_a_full_disk_are_recovered_from_the_log(
    simulate: Simulate, jobs: Jobs, run: Run, output: Path, database: Database, shell: Shell, type_block: Type
) -> None:
    simulator = simulate(exams=350, faults=["reset-after"])
    settings = {"OUTPUT_DIR": str(output), "READ_TIMEOUT": "5", "CONNECT_TIMEOUT": "1"}
    full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))}
    failed = jobs.run({**simulator.settings(), **QUICK, **settings, "LOG_FORMAT": "text"}, **full)
    assert (failed.code, b"UNWRITTEN ROW" in failed.stderr) == (74, True)
    (output.parent / "job.log").write_bytes(failed.stderr)
    (again,) = commands("deploy/recovery.md", "Rows that are only in the log")
    for block, exams in (ADD_ROWS, 100), (again, None):
        taken = type_block(block)
        assert (taken.code, taken.events("recovered")[0].get("exams")) == (0, exams)
    assert run(simulator, **settings).code == 0
    fill(database, [simulator])
    assert type_block(RECOVER).code == 0
    assert_recovered(output, shell, simulator)


def test_exams_of_a_killed_run_are_recovered_after_the_next_run(
    simulate: Simulate, jobs: Jobs, run: Run, output: Path, database: Database, shell: Shell, type_block: Type
) -> None:
    simulator = simulate(exams=250, faults=["ok", "hold"])
    kill_in_a_call(simulator, jobs, output)
    history = shell("python -m app history output")
    assert (history.code, b"killed" in history.stdout) == (1, True)
    assert run(simulator, OUTPUT_DIR=str(output)).code == 65
    fill(database, [simulator])
    assert type_block(RECOVER).code == 0
    assert_recovered(output, shell, simulator)


def test_a_database_in_another_time_zone_is_asked_with_its_name(
    simulate: Simulate, run: Run, output: Path, database: Database, shell: Shell, type_block: Type
) -> None:
    simulator = simulate(exams=250, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(output))
    fill(database, [simulator], "America/Los_Angeles")
    wrong = type_block(RECOVER)
    assert (wrong.code, "--database-zone=-0" in wrong.message) == (76, True)
    query, _ = commands("deploy/recovery.md", "Time zone")
    assert type_block(query).code == 0
    assert type_block(RECOVER.partition("\n")[2]).code == 0
    assert_recovered(output, shell, simulator)


def with_times(block: str, start: str, end: str) -> str:
    """A block that begins with times, with those of the operator."""
    changed, count = re.subn(r"^start=\S+ end=\S+$", f"start={start} end={end}", block, flags=re.MULTILINE)
    assert count == 1
    return changed


def test_windows_are_given_by_hand_for_a_run_without_a_directory(
    simulate: Simulate, run: Run, here: Path, database: Database, type_block: Type
) -> None:
    simulator = simulate(exams=250, faults=["ok", "reset-after"])
    result = run(simulator)
    (lost,) = result.events("response_lost")
    (here / "expired.csv").write_bytes(result.stdout)
    fill(database, [simulator])
    (block,) = commands("deploy/recovery.md", "Without `OUTPUT_DIR`")
    recovered = type_block(with_times(block, lost["start"], lost["end"]))
    assert recovered.code == 0, recovered.stderr
    rows = rows_of((here / "recovered.csv").read_bytes())
    assert sorted(result.exam_ids + [row["examId"] for row in rows]) == sorted(expired(simulator))
    assert stat.S_IMODE((here / "recovered.csv").stat().st_mode) == 0o600


def move_back(summary: Path, minutes: int) -> None:
    """Have a summary as if its run had been so many minutes earlier, by its own clock."""

    def earlier(moments: dict[str, Any], *names: str) -> dict[str, Any]:
        times = {name: datetime.fromisoformat(moments[name]) - timedelta(minutes=minutes) for name in names}
        return moments | {name: time.isoformat() for name, time in times.items()}

    run = earlier(json.loads(summary.read_bytes()), "started", "ended")
    run["lost"] = [earlier(window, "start", "end") for window in run["lost"]]
    summary.write_text(json.dumps(run))


def test_the_exams_of_a_run_whose_clock_was_wrong_are_in_one_wide_window(
    simulate: Simulate, run: Run, output: Path, database: Database, shell: Shell, type_block: Type
) -> None:
    right, wrong = simulate(exams=150, seed=1), simulate(exams=250, seed=2, faults=["ok", "reset-after"])
    assert run(wrong, OUTPUT_DIR=str(output)).code == 65
    (summary,) = output.glob("*.json")
    move_back(summary, minutes=37)
    assert run(right, OUTPUT_DIR=str(output)).code == 0
    fill(database, [wrong, right])
    assert type_block(RECOVER).code == 76
    start = json.loads(summary.read_bytes())["started"]
    end = shell("date -u -d '+1 minute' +%FT%TZ").stdout.decode().strip()
    (block,) = commands("deploy/recovery.md", "A clock that was wrong for a whole run")
    assert type_block(with_times(block, start.replace("+00:00", "Z"), end)).code == 0
    assert_recovered(output, shell, wrong, right)


def test_a_list_from_elsewhere_resolves_all_windows(
    simulate: Simulate, run: Run, output: Path, shell: Shell, type_block: Type
) -> None:
    simulator = simulate(exams=250, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(output))
    move_back(next(output.glob("*.json")), minutes=60)
    (output.parent / "list.csv").write_text(simulator.found(simulator.record[1], ",").removesuffix("\n"))
    take, _ = commands("deploy/recovery.md", "Without the query")
    assert type_block(take).code == 0
    assert_recovered(output, shell, simulator)


def test_where_no_run_has_an_exam_the_time_zone_is_confirmed_by_hand(
    simulate: Simulate, run: Run, output: Path, database: Database, shell: Shell, type_block: Type
) -> None:
    simulator = simulate(exams=50, faults=["reset-after"])
    assert run(simulator, OUTPUT_DIR=str(output)).code == 65
    fill(database, [simulator])
    unconfirmed = type_block(RECOVER)
    assert (unconfirmed.code, "--trust-zone" in unconfirmed.message) == (76, True)
    _, confirm = commands("deploy/recovery.md", "Time zone")
    assert type_block(confirm).code == 0
    assert_recovered(output, shell, simulator)


def test_an_empty_list_is_refused_and_a_note_resolves_all_windows(
    simulate: Simulate, run: Run, output: Path, shell: Shell, type_block: Type
) -> None:
    (output.parent / "list.csv").touch()
    take, acknowledge = commands("deploy/recovery.md", "Without the query")
    run(simulate(exams=50, faults=["reset-before"]), OUTPUT_DIR=str(output))
    refused = type_block(take)
    assert (refused.code, "--acknowledge" in refused.message) == (76, True)
    assert shell("python -m app history output").code == 1
    assert type_block(acknowledge).code == 0
    assert b"ticket 4711" in shell("python -m app history output").stdout
