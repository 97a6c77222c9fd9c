"""What happened in a run: one line for the operator, one object for machines."""

import logging
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any

from app import __version__
from app.exceptions import Ending, ExitCode, Outcome, OutputFailed, exit_code
from app.logs import log_event
from app.model import STATUSES, Exam, Moment, Window, timestamp

_STATUS = attrgetter("updatedExamStatus")

_MESSAGES = {
    Outcome.DRAINED: "Proctor has no more overdue exams.",
    Outcome.NO_PROGRESS: (
        "Proctor reports that there is more, but changes nothing: the oldest started exams, as many as its"
        " expireExamLimit, are not due yet. In a testing season this is the normal end of a run. Due exams after them"
        " can only be reached when expireExamLimit of the exam service is raised."
    ),
    Outcome.TIME_LIMIT: "MAX_RUNTIME has passed; the next run continues from here.",
    Outcome.INTERRUPTED: "A signal ended the run; the next run continues from here.",
}


def status_of(cell: str) -> str:
    """What an exam is counted as. Older deployments of Proctor do not report the status."""
    return cell if cell in STATUSES else "unknown"


def plural(number: int, one: str, many: str | None = None) -> str:
    """A number of things in words, such as `1,234 exams`; `many` is for what takes more than an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


class Summary:
    """The counts of a run, kept while it goes on and closed by `end`."""

    def __init__(self, client_name: str, proctor_url: str | None, began: Moment | None = None) -> None:
        self.client_name = client_name
        self.proctor_url = proctor_url
        self.began = began or Moment.now()
        self.ended: datetime | None = None
        self.calls = 0
        self.retries = 0
        self.exams: Counter[str] = Counter()
        self.lost: list[Window] = []
        self._read_at: dict[Window, Moment] = {}
        self.outcome = Outcome.FAILED
        self.exit_code: int = ExitCode.OK
        self.unresolved_before = False
        """Whether a window of an earlier run on the volume is unresolved, or may be."""
        self.message = ""

    @property
    def alarm_code(self) -> int:
        """The exit code for a monitor, whose alarm stays on until the lost responses of earlier runs are resolved."""
        if self.exit_code == ExitCode.OK and self.unresolved_before:
            return ExitCode.RESPONSES_LOST
        return self.exit_code

    def add(self, exams: Iterable[Exam]) -> None:
        """Count exams that Proctor reported."""
        for status, count in Counter(map(_STATUS, exams)).items():
            self.exams[status_of(status)] += count

    def add_lost(self, window: Window, read_at: Moment) -> None:
        """Note the window of a lost response; `read_at` is when the clock was read for it."""
        self.lost.append(window)
        self._read_at[window] = read_at

    def count_retry(self) -> None:
        self.retries += 1

    def log_progress(self) -> None:
        """Log how far the run has come."""
        total, seconds = self.exams.total(), Moment.now().seconds_since(self.began)
        log_event(
            logging.INFO,
            "progress",
            f"{plural(total, 'exam')} in {plural(self.calls, 'call')} so far, {total / seconds:,.0f} per second.",
            exams=total,
            calls=self.calls,
            seconds=round(seconds, 3),
        )

    def end(self, ending: Ending, *, fail_on_no_progress: bool = False) -> None:
        """Close the counts. The first failure counts: a later ending only counts if the run had ended well."""
        if self.ended and self.exit_code != ExitCode.OK:
            return
        now = Moment.now()
        self.ended = now.wall
        self.lost = [self._by_all_clocks(window, now) for window in self.lost]
        self.outcome = ending.outcome
        self.message = self._message(ending)
        self.exit_code = exit_code(ending, responses_lost=bool(self.lost), fail_on_no_progress=fail_on_no_progress)

    def _by_all_clocks(self, window: Window, now: Moment) -> Window:
        """A window as it is by the clock at its own time, at the start of the run and now: one of them is right."""
        if not (read_at := self._read_at.get(window)):
            return window
        wider = window.by_clock_at(self.began, read_at).by_clock_at(now, read_at)
        if wider != window:
            log_event(
                logging.ERROR,
                "response_lost",
                f"The clock was set during the run. So exams that Proctor changed {wider.period} may be in no"
                f" CSV, rather than {window.period}.",
                **wider.period.bounds(),
                reason=wider.reason,
            )
        return wider

    def _message(self, ending: Ending) -> str:
        """What ended the run, what that means for the exams, and what to do."""
        failure = ending.failure
        parts = [str(failure) if failure else _MESSAGES[ending.outcome]]
        if failure and not isinstance(failure, OutputFailed) and not self.lost:
            parts.append("The exams so far are in the CSV; others stay due." if self.calls else "Nothing was expired.")
        if self.lost:
            parts.append(
                "Exams may have been expired that are in no CSV, and no later run reports them: recover them as the"
                " README describes under 'You were paged'."
            )
        elif self.unresolved_before:
            parts.append("Lost responses of earlier runs are unresolved: see the beginning of this log.")
        return " ".join(parts)

    def log_end(self) -> None:
        """Log the last line of a run, which can be understood at a glance."""
        fine = self.exit_code == ExitCode.OK
        level = logging.ERROR if not fine else logging.INFO if self.outcome is Outcome.DRAINED else logging.WARNING
        log_event(
            level,
            "end",
            f"{'Done' if fine else f'Ended with exit code {self.exit_code}'}: {self._counted()}. {self.message}",
            summary=self.as_object(),
        )

    def _counted(self) -> str:
        by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(self.exams.items()))
        parts = [
            plural(self.exams.total(), "exam") + (f" ({by_status})" if by_status else ""),
            plural(self.calls, "call"),
            plural(self.retries, "retry", "retries"),
            f"{Moment.now().seconds_since(self.began):.1f} s",
        ]
        if self.lost:
            parts.append(plural(len(self.lost), "RESPONSE LOST", "RESPONSES LOST"))
        return ", ".join(parts)

    def as_object(self) -> dict[str, Any]:
        """The summary as it is kept beside the CSV. Times are UTC."""
        return {
            "version": __version__,
            "client_name": self.client_name,
            "proctor_url": self.proctor_url,
            "started": timestamp(self.began.wall),
            "ended": timestamp(self.ended) if self.ended else None,
            "outcome": self.outcome,
            "exit_code": self.exit_code if self.ended else None,
            "message": self.message,
            "exams": {status: self.exams[status] for status in (*STATUSES, "unknown")},
            "calls": self.calls,
            "retries": self.retries,
            "lost": [{**window.period.bounds(), "reason": window.reason} for window in self.lost],
        }
