"""The embedded Proctor of the tests: calls can be held and waited for, and changes read as from the database."""

from collections.abc import Iterator
from queue import Queue
from threading import Condition, Event
from typing import Any

from app.simulator import Scenario, Simulator
from app.simulator.faults import Fault
from app.simulator.handler import Handler
from app.simulator.service import ExamService

REASONS = {
    "completed": "Completing exam via the force submit process",
    "expired": "Expiring exam via the force submittal process",
}
"""`status_change_reason` in the table `exam.exam_event`, by status."""


class EmbeddedProctor(Simulator):
    """With one more fault, `hold`: the exams are changed, and the response waits for `release`."""

    def __init__(self, scenario: Scenario, host: str = "127.0.0.1", certificate: tuple[str, str] | None = None) -> None:
        super().__init__(scenario, host, certificate=certificate)
        self.call_began = Event()
        self.held = Event()
        """Whether a call has met the fault `hold`."""
        self.release = Event()
        self.ended: Queue[dict[str, Any]] = Queue()
        """The record of each call that has ended."""
        self._call_ended = Condition()

    def __exit__(self, *details: object) -> None:
        self.release.set()
        super().__exit__(*details)

    def fault(self, name: str) -> Fault:
        return Fault("a good response once released", self._hold, "all") if name == "hold" else super().fault(name)

    def _hold(self, call: Handler) -> None:
        self.held.set()
        self.release.wait()
        call.send(call.ok(call.body))

    def begin(self, entry: dict[str, Any]) -> None:
        super().begin(entry)
        self.call_began.set()

    def end(self, entry: dict[str, Any]) -> None:
        super().end(entry)
        self.ended.put(entry)
        with self._call_ended:
            self._call_ended.notify_all()

    def wait_idle(self) -> None:
        """Wait until every call that began has ended, also those whose client has gone."""
        with self._call_ended:
            self._call_ended.wait_for(lambda: all("end" in entry for entry in self.record))

    def exam_events(self, *entries: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The changes of these entries of the record (of all, if none is given), one dictionary for each.

        It has what the tables `exam.exam_event` and `exam.exam` hold: `examId`, `studentId`, `assessmentKey`,
        `assessmentId`, `clientName`, `status`, `reason`, and `changedAt` (ISO 8601, UTC; the start of the update). An
        exam that two calls changed has two.
        """
        service = ExamService(self.scenario)
        for entry in entries or list(self.record):
            for update in entry["updates"]:
                status = update["status"]
                rest = {"status": status, "reason": REASONS[status], "changedAt": update["at"]}
                for exam_id in update["exams"]:
                    yield {**service.describe(exam_id), "clientName": self.scenario.client_name, **rest}

    def found(self, entry: dict[str, Any], separator: str = "\t") -> str:
        """The exams of an entry of the record as a list for `recover --found`, one line for each."""
        columns = ("assessmentKey", "assessmentId", "examId", "studentId", "status")
        return "".join(separator.join(str(row[name]) for name in columns) + "\n" for row in self.exam_events(entry))
