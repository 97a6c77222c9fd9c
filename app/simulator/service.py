"""The exam service: which exams a call takes, what it changes, what it reports."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from app.simulator.responses import compact
from app.simulator.scenario import Scenario


class Outcome(NamedTuple):
    """What one call did: the ids of the exams that it changed, the body of its response, and its updates.

    An update is a dictionary: `status`, `at` (the time, taken at its start), `exams` (their ids).
    """

    expired: list[str]
    body: bytes
    updates: list[dict[str, Any]]


class ExamService:
    """The started exams, oldest first: those not due yet, then the overdue ones. Not thread-safe."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = random.Random(f"order {scenario.seed}")
        self._first = scenario.not_due
        self._end = scenario.not_due + scenario.exams
        self._done: set[int] = set()

    def select(self) -> tuple[list[int], bool]:
        """The due ones among the first `limit`, and whether there are more than `limit`."""
        first = list(islice(self._open(), self._scenario.limit + 1))
        due = [number for number in first[: self._scenario.limit] if number >= self._scenario.not_due]
        return due, len(first) > self._scenario.limit

    def change(self, due: list[int], more: bool, half: bool) -> Outcome:
        """Give exams their final status, by two updates or, with `half`, by the first of them alone.

        Another call may have done so in the meantime: then they are changed twice, as no transaction prevents that.
        """
        ids = {number: self._id(number) for number in due}
        changed, updates = [], []
        for status in ("completed",) if half else ("completed", "expired"):
            numbers = [number for number in due if self._status(number) == status]
            if numbers:
                updates.append({"status": status, "at": now(), "exams": [ids[number] for number in numbers]})
                changed += numbers
                self._finish(numbers)
        self._random.shuffle(changed)  # the service collects them into a set
        return Outcome([ids[number] for number in changed], self._body(changed, more), updates)

    def describe(self, exam_id: str) -> dict[str, Any]:
        """An exam, as the table `exam.exam` holds it."""
        number = int(exam_id.rpartition("-")[2], 16)
        assessment = f"SBAC-Perf-ELA-{3 + number % 9}"
        return {
            "studentId": (-1 if number % 25 == 24 else 1) * (100_000 + number),  # those of guests are negative
            "assessmentKey": f"(SBAC_PT){assessment}-Spring-2017-2018",
            "assessmentId": assessment,
            "examId": exam_id,
        }

    def body(self, exams: list[dict[str, Any]], more: bool) -> bytes:
        """The body of a response."""
        content: dict[str, Any] = {"additionalExamsToExpire": more, "expiredExams": exams}
        if not exams and self._scenario.empty_list == "null":
            content["expiredExams"] = None
        if not exams and self._scenario.empty_list == "missing":
            del content["expiredExams"]
        return compact(content)

    def _body(self, numbers: list[int], more: bool) -> bytes:
        exams = [self.describe(self._id(number)) for number in numbers]
        if self._scenario.with_status:
            for number, exam in zip(numbers, exams, strict=True):
                exam["updatedExamStatus"] = self._status(number)
        return self.body(exams, more)

    def _open(self) -> Iterator[int]:
        yield from range(self._scenario.not_due)
        yield from (number for number in range(self._first, self._end) if number not in self._done)

    def _finish(self, numbers: list[int]) -> None:
        self._done.update(numbers)
        while self._first in self._done:
            self._done.discard(self._first)
            self._first += 1

    def _status(self, number: int) -> str:
        """The final status; the force complete of an assessment is not found for a client name with a space."""
        return "completed" if number % 10 == 7 and " " not in self._scenario.client_name else "expired"

    def _id(self, number: int) -> str:
        return f"{self._scenario.seed & 0xFFFFFFFF:08x}-5bac-4000-8000-{number:012x}"


def now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
