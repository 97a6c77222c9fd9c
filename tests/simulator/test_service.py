"""Which exams a call takes, what it changes, and what it reports."""

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from app.simulator import Scenario
from app.simulator.service import ExamService
from tests.simulator.client import expire, left, numbers, recorded
from tests.support import Simulate


@pytest.mark.parametrize(
    ("scenario", "calls"),
    [
        ({"exams": 0}, [([], False)]),
        ({"exams": 2, "limit": 2}, [([0, 1], False), ([], False)]),
        ({"exams": 3, "limit": 2}, [([0, 1], True), ([2], False)]),
        ({"exams": 5, "limit": 2}, [([0, 1], True), ([2, 3], True), ([4], False)]),
        ({"exams": 2, "not_due": 2, "limit": 3}, [([2], True), ([3], False), ([], False)]),
        ({"exams": 2, "not_due": 2, "limit": 2}, [([], True), ([], True)]),
        ({"exams": 0, "not_due": 2, "limit": 2}, [([], False)]),
        ({"exams": 0, "not_due": 3, "limit": 2}, [([], True), ([], True)]),
    ],
)
def test_a_call_takes_the_due_ones_of_the_oldest_exams(
    simulate: Simulate, scenario: dict[str, int], calls: list[tuple[list[int], bool]]
) -> None:
    simulator = simulate(**scenario)
    responses = [expire(simulator) for _ in calls]
    assert [(numbers(one), one.json()["additionalExamsToExpire"]) for one in responses] == calls


def test_a_call_takes_a_hundred_by_default(simulate: Simulate) -> None:
    assert left(simulate()) == list(range(100))


@pytest.mark.parametrize("not_due", [0, 3])
@pytest.mark.parametrize(("empty_list", "rest"), [("null", b',"expiredExams":null'), ("list", b',"expiredExams":[]')])
def test_a_call_that_changes_nothing_has_no_list_of_exams(
    simulate: Simulate, not_due: int, empty_list: str, rest: bytes
) -> None:
    more = b"true" if not_due else b"false"
    simulator = simulate(exams=0, not_due=not_due, limit=2, empty_list=empty_list)
    assert expire(simulator).body == b'{"additionalExamsToExpire":' + more + rest + b"}"


def test_a_call_that_changes_nothing_may_leave_the_list_out(simulate: Simulate) -> None:
    assert expire(simulate(exams=0, empty_list="missing")).body == b'{"additionalExamsToExpire":false}'


@pytest.mark.parametrize("empty_list", ["null", "list", "missing"])
def test_a_call_that_changes_exams_always_lists_them(simulate: Simulate, empty_list: str) -> None:
    assert left(simulate(exams=2, empty_list=empty_list)) == [0, 1]


@pytest.mark.parametrize("with_status", [True, False])
def test_an_exam_is_reported_with_the_fields_of_its_deployment(simulate: Simulate, with_status: bool) -> None:
    simulator = simulate(exams=30, with_status=with_status)
    exams = expire(simulator).json()["expiredExams"]
    for exam in exams:
        assert {name: type(value) for name, value in exam.items()} == {
            "studentId": int,
            "assessmentKey": str,
            "assessmentId": str,
            "examId": str,
            **({"updatedExamStatus": str} if with_status else {}),
        }
        assert str(UUID(exam["examId"])) == exam["examId"]
        assert exam["assessmentId"] in exam["assessmentKey"]
    statuses = {exam["examId"]: exam.get("updatedExamStatus") for exam in exams}
    assert set(statuses.values()) == ({"expired", "completed"} if with_status else {None})
    assert recorded(simulator)["expired"] == list(statuses)
    assert [exam["studentId"] for exam in exams] != sorted(exam["studentId"] for exam in exams)
    assert any(exam["studentId"] < 0 for exam in exams)


def test_completed_exams_are_changed_before_expired_ones(simulate: Simulate) -> None:
    simulator = simulate(exams=30)
    expire(simulator)
    entry = recorded(simulator)
    assert [update["status"] for update in entry["updates"]] == ["completed", "expired"]
    assert [len(update["exams"]) for update in entry["updates"]] == [3, 27]
    times = [datetime.fromisoformat(time) for time in (entry["start"], *(one["at"] for one in entry["updates"]))]
    assert times == sorted(times)
    assert times[-1] <= datetime.fromisoformat(entry["changed"]) <= datetime.fromisoformat(entry["end"])
    assert all(time.tzinfo for time in times)


def test_two_calls_at_the_same_time_change_the_same_exams_twice() -> None:
    service = ExamService(Scenario(exams=3))
    selections = [service.select() for _ in range(2)]
    first, second = (service.change(due, more, half=False) for due, more in selections)
    assert sorted(first.expired) == sorted(second.expired)
    assert len(first.expired) == 3
    assert service.select() == ([], False)


def test_a_client_name_with_a_space_completes_no_exam(simulate: Simulate) -> None:
    simulator = simulate(exams=20, client_name="SBAC PT")
    exams = expire(simulator, client_name="SBAC PT").json()["expiredExams"]
    assert {exam["updatedExamStatus"] for exam in exams} == {"expired"}


def test_the_changes_can_be_read_as_from_the_database(simulate: Simulate) -> None:
    simulator = simulate(exams=30, limit=20, faults=["500-half"])
    expire(simulator)
    half = recorded(simulator)
    exams = expire(simulator).json()["expiredExams"]
    rest = recorded(simulator)
    lost, events = list(simulator.exam_events(half)), list(simulator.exam_events())
    assert sorted(event["examId"] for event in lost) == sorted(half["expired"]) != []
    assert {(event["status"], event["reason"]) for event in lost} == {
        ("completed", "Completing exam via the force submit process")
    }
    assert ("expired", "Expiring exam via the force submittal process") in {
        (event["status"], event["reason"]) for event in events
    }
    reported: dict[str, dict[str, Any]] = {exam.pop("examId"): exam for exam in exams}
    for event in simulator.exam_events(rest):
        exam = reported.pop(event["examId"])
        assert event["status"] == exam.pop("updatedExamStatus")
        assert exam.items() <= event.items()
        assert event["clientName"] == "SBAC_PT"
        assert rest["start"] <= event["changedAt"] <= rest["changed"]
    assert not reported
    assert len(events) == len(lost) + len(rest["expired"])
