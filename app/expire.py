"""The loop: calls strictly one after the other until Proctor has no more, each answer written before the next call."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from app.auth import Tokens
from app.exits import Outcome, TooManyLost, Unavailable
from app.logs import event, timestamp
from app.proctor import Batch, Exam, Lost, Proctor, TokenRejected, Window
from app.report import Report
from app.retries import retrying
from app.settings import Settings
from app.signals import Interrupted, Stop
from app.summary import Summary
from app.transport import Transient

_PROGRESS_EVERY = 5.0
_ODDITIES_WARNED_OF = 20


class _TimeIsUp(Exception):
    """MAX_RUNTIME has passed."""


def expire_all(
    settings: Settings, tokens: Tokens, proctor: Proctor, *, report: Report, summary: Summary, stop: Stop
) -> Outcome:
    """Call Proctor until nothing is left, or until it says "more" but brings nothing new.

    Raises:
        Interrupted: a signal came; the rows of every answer received are written.
        Failure: the run cannot go on; the rows of every answer received are written, to stderr where need be.
    """
    inherited = len(summary.lost)
    deadline = time.monotonic() + (settings.max_runtime or float("inf"))

    def check_time() -> None:
        stop.check()
        if time.monotonic() >= deadline:
            raise _TimeIsUp

    def note_lost(window: Window) -> None:
        report.answer_lost()
        summary.lost.append(window)
        _log_lost(window)

    def call_with_token() -> Batch:
        check_time()
        with stop.interruptible(after=1):
            token = tokens.get()
        check_time()
        try:
            return _call(proctor, token, settings, stop, note_lost)
        except Lost as lost:
            if (number := len(summary.lost) - inherited) <= settings.max_lost_responses:
                raise
            raise TooManyLost(
                f"{number} answers may be lost, more than MAX_LOST_RESPONSES={settings.max_lost_responses} allows; the"
                f" last one because: {lost}. If every call ends like this from the first on, check CLIENT_NAME and"
                " Proctor's own log."
            ) from None

    def attempt() -> Batch:
        try:
            return call_with_token()
        except TokenRejected:
            event(logging.INFO, "token_rejected", "Proctor answered 401; asking for a new token.")
            tokens.discard()
        return call_with_token()

    def sleep(seconds: float) -> None:
        stop.wait(max(min(seconds, deadline - time.monotonic()), 0))

    previous: set[Exam] = set()
    warned: set[str] = set()
    progress_at = time.monotonic() + _PROGRESS_EVERY
    while True:
        try:
            batch = retrying(f"Call {summary.calls + 1}", settings, sleep, summary.count_retry)(attempt)
        except _TimeIsUp:
            return Outcome.TIME_LIMIT
        except Transient as reason:
            raise Unavailable(
                f"Proctor was tried {settings.max_attempts} times in a row without success, at last: {reason}."
                " Check that Proctor is up and reached from here."
            ) from None
        summary.calls += 1
        exams = list(_unreported(batch.exams, previous))
        summary.add(exams)
        report.write(exams)
        _warn_once(batch.oddities, warned)
        if not batch.more:
            return Outcome.DRAINED
        if previous.issuperset(batch.exams):
            return Outcome.NO_PROGRESS
        previous = set(batch.exams)
        if time.monotonic() >= progress_at:
            summary.log_progress()
            progress_at = time.monotonic() + _PROGRESS_EVERY


def _call(proctor: Proctor, token: str, settings: Settings, stop: Stop, note_lost: Callable[[Window], None]) -> Batch:
    """One call, during which a second signal ends the run."""
    start = datetime.now(UTC)
    try:
        with stop.interruptible(after=2):
            return proctor.expire(token)
    except Interrupted:
        note_lost(Window.until_now(start, "a second signal ended the call", settings.read_timeout))
        raise
    except Lost as lost:
        note_lost(lost.window)
        raise


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
