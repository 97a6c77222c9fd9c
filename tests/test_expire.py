"""The loop: when a run goes on, when it ends and how, and that each exam gets exactly one row."""

from itertools import chain, cycle, repeat
from typing import Any

import pytest

from tests.proctor.bodies import EXAM, batch, exam
from tests.servers import in_turn, responding, serving
from tests.support import Run, Simulate, expired


def test_a_run_goes_on_until_proctor_has_no_more(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, limit=100)
    result = run(simulator)
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 250
    assert len(simulator.record) == 3
    assert result.summary["outcome"] == "drained"
    assert result.summary["exams"] == {"expired": 225, "completed": 25, "unknown": 0}


@pytest.mark.parametrize("path", [["A", "B", "A"], ["A", "A"], ["A", "B", "C", "B"], ["A", "B", "A", "B", "A", "B"]])
def test_a_proctor_that_repeats_its_responses_for_ever_makes_no_progress(
    simulate: Simulate, run: Run, path: list[str]
) -> None:
    responses = {name: batch(exam(f"{name}1"), exam(f"{name}2"), more=True) for name in path}
    turns = chain(path, repeat(path[-1]))
    with serving(responding(lambda _: responses[next(turns)])) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.summary["outcome"], result.summary["lost"]) == (0, "no_progress", [])
    assert sorted(result.exam_ids) == sorted(f"{name}{number}" for name in set(path) for number in (1, 2))
    assert len(server.requests) <= len(set(path)) + 1


def test_an_exam_that_is_twice_in_a_response_gets_one_row(simulate: Simulate, run: Run) -> None:
    with serving(responding(batch(EXAM, exam("other"), EXAM, exam("other")))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids) == (0, ["exam", "other"])
    assert result.summary["exams"]["expired"] == 2


@pytest.mark.parametrize("apart", [False, True])
def test_an_exam_that_is_reported_again_with_another_status_is_logged_and_gets_no_second_row(
    simulate: Simulate, run: Run, apart: bool
) -> None:
    again = exam("exam", updatedExamStatus="completed")
    responses = [batch(EXAM, more=True), batch(again)] if apart else [batch(EXAM, again)]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert result.code == 0
    assert [(row["examId"], row["updatedExamStatus"]) for row in result.rows] == [("exam", "expired")]
    (warning,) = result.events("unexpected_response")
    assert "exam 'exam' again, with the status 'completed'" in warning["message"]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("other", [{"studentId": 8}, {"assessmentId": "other"}, {"assessmentKey": "other"}])
def test_exams_with_the_same_id_that_are_different_get_a_row_each_and_are_logged_once(
    simulate: Simulate, run: Run, other: dict[str, Any], apart: bool
) -> None:
    second, third = exam("exam", **other), exam("exam", studentId=9)
    responses = [batch(EXAM, more=True), batch(second, third)] if apart else [batch(EXAM, second, third)]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids) == (0, ["exam"] * 3)
    assert [row["studentId"] for row in result.rows][-1] == "9"
    (warning,) = result.events("unexpected_response")
    assert "exam 'exam' again, of another student or assessment. Each exam has its row" in warning["message"]


def test_an_exam_that_is_reported_again_without_some_of_its_values_gets_no_second_row(
    simulate: Simulate, run: Run
) -> None:
    responses = [batch(EXAM, more=True), batch(exam("exam", studentId=None, assessmentKey=""))]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids) == (0, ["exam"])


@pytest.mark.parametrize("size", [1, 3_000])
def test_a_proctor_that_repeats_exams_with_the_same_id_for_ever_makes_no_progress(
    simulate: Simulate, run: Run, size: int
) -> None:
    first, second = (
        batch(*(exam("exam", studentId=number) for number in range(begin, begin + size)), more=True)
        for begin in (0, size)
    )
    turns = cycle((first, second, second, first))
    with serving(responding(lambda _: next(turns))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.summary["outcome"], len(server.requests)) == (0, "no_progress", 3)
    assert sorted(int(row["studentId"]) for row in result.rows) == list(range(2 * size))


@pytest.mark.parametrize("missing", [None, ""])
def test_records_without_an_exam_id_get_a_row_each_and_do_not_keep_a_run_going(
    simulate: Simulate, run: Run, missing: str | None
) -> None:
    record = exam("", examId=missing)
    with serving(responding(batch(record, record, {**record, "studentId": 8}, more=True))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.summary["outcome"]) == (0, "no_progress")
    assert [row["studentId"] for row in result.rows] == ["7", "7", "8"] * len(server.requests)
    assert len(server.requests) == 2


@pytest.mark.parametrize(("faults", "code"), [("ok repeat", 0), ("repeat", 0), ("ok cut-body repeat", 65)])
def test_a_response_that_is_received_twice_gives_one_row_per_exam(
    simulate: Simulate, run: Run, faults: str, code: int
) -> None:
    simulator = simulate(exams=250, faults=faults.split())
    result = run(simulator)
    assert result.code == code
    assert sorted(result.exam_ids) == sorted(expired(simulator))


def test_no_call_is_made_after_max_runtime(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, latency=0.3)
    result = run(simulator, MAX_RUNTIME="0.2")
    assert result.code == 75
    assert result.summary["outcome"] == "time_limit"
    assert len(simulator.record) <= 1
    assert sorted(result.exam_ids) == sorted(expired(simulator))


def test_no_call_is_made_where_max_runtime_passed_over_the_token(simulate: Simulate, run: Run) -> None:
    simulator = simulate(token_faults=["silence"])
    result = run(simulator, MAX_RUNTIME="0.2", READ_TIMEOUT="0.5")
    assert simulator.record == []
    assert result.code == 75
    assert result.summary["outcome"] == "time_limit"


@pytest.mark.parametrize(
    ("scenario", "settings", "outcome", "code"),
    [
        ({"faults": ["500-after"]}, {}, "drained", 65),
        ({"faults": ["500-after", "503", "503"]}, {"MAX_ATTEMPTS": "3"}, "failed", 65),
        ({"faults": ["500-after"]}, {"MAX_RUNTIME": "3", "MAX_WAIT": "3600"}, "time_limit", 65),
        ({"faults": ["500-after"], "not_due": 120}, {}, "no_progress", 65),
        ({"faults": ["500-after"], "not_due": 120}, {"FAIL_ON_NO_PROGRESS": "1"}, "no_progress", 65),
        ({"faults": ["500-after", "403"]}, {}, "failed", 77),
        ({"faults": ["500-after", "404"]}, {}, "failed", 78),
    ],
)
def test_a_lost_response_changes_an_exit_code_that_would_hide_it(
    simulate: Simulate, run: Run, scenario: dict[str, Any], settings: dict[str, str], outcome: str, code: int
) -> None:
    result = run(simulate(exams=250, **scenario), **settings)
    assert (result.code, result.summary["outcome"]) == (code, outcome)
    assert len(result.summary["lost"]) == 1
