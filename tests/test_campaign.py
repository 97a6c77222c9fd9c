"""The campaign, in short: the same runs each time."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from app.simulator import Scenario
from tests.recover.database import Database
from tests.tools.campaign import NO_COMPILER, campaign, servers
from tests.tools.recovery import MISSING, Recovery
from tests.tools.sabotage import KILLS, Sabotage, loaded
from tests.tools.trial import Trial
from tests.tools.verdict import Verdict

RUNS = 6  # per test, so that tests on several processors share them

Databases = list[Database | None]


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    with servers(1) as databases:
        yield databases


@pytest.mark.parametrize("first", range(0, 12 * RUNS, RUNS))
def test_no_exam_is_lost_or_duplicated_and_no_alarm_is_false(databases: Databases, first: int) -> None:
    assert_promise_kept(range(first, first + RUNS), databases)


@pytest.mark.parametrize(
    ("what", "once"),
    [*((kill, False) for kill in KILLS), ("storage defective", False), ("storage defective", True)],
)
def test_no_step_of_the_output_is_one_at_which_an_exam_gets_lost(
    tmp_path: Path, databases: Databases, what: str, once: bool
) -> None:
    steps = []
    for number in count(1):
        directory = tmp_path / str(number)
        directory.mkdir()
        with loaded() as sabotage:
            if not sabotage:
                (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_COMPILER)
            trial = Trial(number, directory, sabotage, Scenario(exams=2, limit=1))
            step = trial.play_sabotage(Sabotage(number, what, once))
        verdict = Verdict(trial)
        assert verdict.tally.broken == []
        if databases[0] and verdict.something_is_lost:
            place = tmp_path / f"recovery-{number}"
            place.mkdir()
            assert Recovery(trial, databases[0], place).tally.broken == []
        if not step:
            break
        steps.append(re.sub(r" \S*?(\.partial|\.tmp|\.json|\.csv|\.lock)?$", r" \1", step))
    assert set(steps) >= {
        *("open .lock", "lseek64 .lock", "write .lock", "close .lock"),
        *("open .partial", "write .partial", "fsync .partial", "close .partial", "rename .csv"),
        *("open .tmp", "write .tmp", "fsync .tmp", "close .tmp", "rename .json", "fsync "),
    }


@pytest.mark.parametrize("seconds", [-3600, 3600])
@pytest.mark.parametrize("number", [3, 8, 16, 60])
def test_whenever_the_clock_is_set_the_exams_of_a_lost_response_are_recovered(
    tmp_path: Path, databases: Databases, number: int, seconds: int
) -> None:
    volume, place = tmp_path / "volume", tmp_path / "place"
    volume.mkdir()
    place.mkdir()
    with loaded() as sabotage:
        if not sabotage or not databases[0]:
            pytest.skip("this needs a C compiler and MariaDB")
        trial = Trial(number, volume, sabotage, Scenario(exams=4, limit=2, faults=["ok", "reset-after"]))
        trial.seconds_ahead = seconds
        trial.play_sabotage(Sabotage(number, "clock set", seconds=seconds))
    assert Verdict(trial).tally.broken == []
    tally = Recovery(trial, databases[0], place).tally
    assert tally.broken == []
    assert tally.counts["exams recovered from the database"] == 2


def assert_promise_kept(seeds: Sequence[int], databases: Databases) -> None:
    tally = campaign(seeds, databases)
    assert tally.broken == []
    assert tally.counts["runs"] == len(seeds)
    assert tally.counts[MISSING] == 0
