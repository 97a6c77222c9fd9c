"""Every way in which a call can end, and what the run makes of it."""

from collections.abc import Callable

import pytest

from app.simulator import Simulator
from tests.conftest import Result, delivered, expired

Simulate = Callable[..., Simulator]
Run = Callable[..., Result]


def test_a_run_goes_on_until_proctor_has_no_more(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, limit=100)
    result = run(simulator)
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 250
    assert len(simulator.record) == 3
    assert result.summary["outcome"] == "drained"
    assert result.summary["exams"] == {"expired": 225, "completed": 25, "unknown": 0}


def test_more_without_anything_new_ends_the_run_well(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=30, not_due=120, limit=100)
    result = run(simulator)
    assert result.code == 0
    assert result.summary["outcome"] == "no_progress"
    assert "expireExamLimit" in result.message
    assert len(simulator.record) == 1


@pytest.mark.parametrize("fault", ["503", "503:0", "429:0", "429:date", "401"])
def test_what_is_turned_away_is_tried_again_and_nothing_is_lost(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=150, faults=["ok", fault])
    result = run(simulator)
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert result.summary["lost"] == []


@pytest.mark.parametrize(
    "fault",
    ["reset-after", "cut-head", "cut-body", "500", "500-after", "500-half", "502-after", "504-after", "html"]
    + ["not-json", "no-list", "null-list", "reset-before"],
)
def test_a_lost_answer_is_named_with_its_window(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator)
    assert result.code == 65
    reported = [exam for call in simulator.record if call["fault"] == "ok" for exam in call["expired"]]
    assert sorted(result.exam_ids) == sorted(reported)
    (window,) = result.summary["lost"]
    lost = simulator.record[1]
    assert window["start"] <= lost["start"].replace("+00:00", "Z")
    assert lost.get("changed", lost["start"]).replace("+00:00", "Z") <= window["end"]
    assert set(delivered(simulator)) >= set(result.exam_ids)
