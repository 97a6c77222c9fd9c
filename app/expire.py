"""The loop: calls strictly one after the other until Proctor has no more, each answer written before the next call."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from app.proctor.tokens import Tokens
from app.exceptions import Failure, Outcome, TooManyLost, Unavailable
from app.logs import event, timestamp
from app.proctor.endpoint import Batch, Exam, Lost, Proctor, TokenRejected, Window
from app.output.csv_report import Report
from app.proctor.retries import with_retries
from app.settings import Settings
from app.signals import Interrupted, Stop
from app.output.summary import Summary
from app.proctor.transport import Transient

_PROGRESS_EVERY = 5.0
_ODDITIES_WARNED_OF = 20


def expire_all(
    settings: Settings, tokens: Tokens, proctor: Proctor, *, report: Report, summary: Summary, stop: Stop
) -> Outcome:
    """Call Proctor until nothing is left, or until it says "more" but brings nothing new.

    Raises:
        Interrupted: a signal came; the rows of every answer received are written.
        Failure: the run cannot go on; the rows of every answer received are written, to stderr where need be.
    """

    def note_lost(window: Window) -> None:
        report.answer_lost()
        summary.lost.append(window)
        _log_lost(window)

    calls = _Calls(settings, tokens, proctor, stop, note_lost)
    previous: set[Exam] = set()
    warned: set[str] = set()
    progress_at = time.monotonic() + _PROGRESS_EVERY
    while True:
        try:
            batch = calls.make(f"Call {summary.calls + 1}", summary.count_retry)
        except _TimeIsUp:
            return Outcome.TIME_LIMIT
        summary.calls += 1
        exams = list(_unreported(batch.exams, previous))
        try:
            summary.add(exams)
            report.write(exams)
        except Exception:
            # The log with these rows may be full or gone, too, and the CSV itself with all its rows.
            note_lost(Window.until_now(summary.started, "the CSV could not be written"))
            raise
        _warn_once(batch.oddities, warned)
        if not batch.more:
            return Outcome.DRAINED
        if previous.issuperset(batch.exams):
            return Outcome.NO_PROGRESS
        previous = set(batch.exams)
        if time.monotonic() >= progress_at:
            summary.log_progress()
            progress_at = time.monotonic() + _PROGRESS_EVERY


class _TimeIsUp(Exception):
    """MAX_RUNTIME has passed."""


class _Calls:
    """Makes calls, each with a good token and as often as the settings allow, until MAX_RUNTIME has passed."""

    def __init__(
        self, settings: Settings, tokens: Tokens, proctor: Proctor, stop: Stop, note_lost: Callable[[Window], None]
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._proctor = proctor
        self._stop = stop
        self._note_lost = note_lost
        self._lost = 0
        self._deadline = time.monotonic() + (settings.max_runtime or float("inf"))

    def make(self, what: str, on_retry: Callable[[], None]) -> Batch:
        """Call until there is an answer; `what` names the call in the log."""
        try:
            return with_retries(self._attempt, what, self._settings, self._sleep, on_retry)
        except Transient as reason:
            raise Unavailable(
                f"Proctor was tried {self._settings.max_attempts} times in a row without success, at last: {reason}."
                " Check that Proctor is up and reached from here."
            ) from None

    def _attempt(self) -> Batch:
        try:
            return self._call()
        except TokenRejected:
            event(logging.INFO, "token_rejected", "Proctor answered 401; asking for a new token.")
            self._tokens.discard()
        return self._call()

    def _call(self) -> Batch:
        """One call, which a second signal ends."""
        self._check_time()
        with self._stop.interruptible(after=1):
            token = self._tokens.get()
        self._check_time()
        start = datetime.now(UTC)
        try:
            with self._stop.interruptible(after=2):
                return self._proctor.expire(token)
        except Interrupted:
            at_work = self._settings.read_timeout
            self._note_lost(Window.until_now(start, "a second signal ended the call", at_work))
            raise
        except Lost as lost:
            self._note_lost(lost.window)
            self._lost += 1
            if self._lost <= self._settings.max_lost_responses:
                raise
            raise TooManyLost(
                f"{self._lost} answers may be lost, more than MAX_LOST_RESPONSES={self._settings.max_lost_responses}"
                f" allows; the last one because: {lost}. If every call ends like this from the first on, check"
                " CLIENT_NAME and Proctor's own log."
            ) from None
        except (Failure, Transient):
            raise
        except Exception as error:
            at_work = self._settings.read_timeout
            self._note_lost(Window.until_now(start, f"a bug ended the call ({type(error).__name__})", at_work))
            raise

    def _check_time(self) -> None:
        self._stop.check()
        if time.monotonic() >= self._deadline:
            raise _TimeIsUp

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(max(min(seconds, self._deadline - time.monotonic()), 0))


def _log_lost(window: Window) -> None:
    start, end = timestamp(window.start), timestamp(window.end)
    event(
        logging.ERROR,
        "answer_lost",
        f"An answer may be lost: exams that Proctor changed from {start} to {end} may be in no CSV. Reason:"
        f" {window.reason}.",
        start=start,
        end=end,
        reason=window.reason,
    )


def _unreported(exams: list[Exam], previous: set[Exam]) -> Iterator[Exam]:
    """Each exam once, none that the previous answer had. Records without an examId may differ unseen: all of them."""
    seen = set(previous)
    for exam in exams:
        if exam not in seen or not exam.examId:
            seen.add(exam)
            yield exam


def _warn_once(oddities: list[str], warned: set[str]) -> None:
    for oddity in sorted(set(oddities) - warned):
        if len(warned) < _ODDITIES_WARNED_OF:
            warned.add(oddity)
            event(logging.WARNING, "odd_answer", f"Proctor sent {oddity}. Its rows are written; this is said once.")
