"""The loop: one call after the other until Proctor has no more, each response written before the next call."""

import logging
import time

from app.exceptions import CredentialsRejected, Failure, Outcome, TooManyLost, Transient, Unavailable
from app.logs import log_event
from app.model import Batch, Exam, Moment, Window
from app.output.csv_report import CsvReport
from app.output.summary import Summary
from app.proctor.endpoint import Endpoint, ResponseLost, TokenRejected
from app.proctor.retries import retrying
from app.proctor.tokens import Tokens
from app.settings import Settings
from app.signals import Interrupted, Stop

_PROGRESS_EVERY = 5.0  # seconds
_ANOMALIES_LOGGED = 20
_EXAMS_REMEMBERED = 1_000  # at least: those of the last response, and of ten where it has the usual 100


def expire_all(
    settings: Settings, tokens: Tokens, endpoint: Endpoint, *, report: CsvReport, summary: Summary, stop: Stop
) -> Outcome:
    """Call Proctor until nothing is left, or until it says "more" but brings nothing new.

    Raises:
        Interrupted: a signal was received; the rows of every response received are written.
        Failure: the run cannot go on; the rows of every response received are written, if necessary to stderr.
    """
    calls = _Calls(settings, tokens, endpoint, report=report, summary=summary, stop=stop)
    recent = _RecentExams()
    logged: set[str] = set()
    progress_at = time.monotonic() + _PROGRESS_EVERY
    while True:
        try:
            batch = calls.make()
        except _TimeIsUp:
            return Outcome.TIME_LIMIT
        try:
            exams, any_new, repeated = recent.rows_of(batch)
            summary.add(exams)
            report.write(exams)
        except Exception:
            # The log, which has these rows, may be lost as well; where the CSV was removed, so are all earlier rows.
            calls.note_lost(summary.began, "the CSV could not be written", grace=0)
            raise
        _log_once(batch.anomalies | repeated, logged)
        if not batch.more:
            return Outcome.DRAINED
        if not any_new:
            return Outcome.NO_PROGRESS
        if time.monotonic() >= progress_at:
            summary.log_progress()
            progress_at = time.monotonic() + _PROGRESS_EVERY


class _TimeIsUp(Exception):
    """MAX_RUNTIME has passed."""


class _Calls:
    """Makes calls, each with a good token and as often as the settings allow, until MAX_RUNTIME has passed."""

    def __init__(
        self,
        settings: Settings,
        tokens: Tokens,
        endpoint: Endpoint,
        *,
        report: CsvReport,
        summary: Summary,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._endpoint = endpoint
        self._report = report
        self._summary = summary
        self._stop = stop
        self._retrying = retrying(settings, self._name, self._sleep, summary.count_retry)
        self._lost = 0
        self._accepted: str | None = None  # the token that Proctor accepted last
        self._deadline = summary.began.monotonic + (settings.max_runtime or float("inf"))

    def make(self) -> Batch:
        """Call until there is a response."""
        try:
            batch = self._retrying(self._attempt)
        except TokenRejected as rejected:
            raise self._token_failure(rejected) from None
        except Transient as reason:
            raise Unavailable(
                f"Could not complete a call: {reason}. Attempts: {self._settings.max_attempts}. Check that Proctor"
                " is up and reachable from this host."
            ) from None
        self._summary.calls += 1
        return batch

    def note_lost(self, began: Moment, reason: str, grace: float) -> None:
        """Report the window of a call that began at `began` and failed just now."""
        self._report.response_lost(at_work=grace > 0)
        now = Moment.now()
        window = Window.of_call(began, now, reason, grace=grace)
        self._summary.add_lost(window, now)
        log_event(
            logging.ERROR,
            "response_lost",
            f"The response to an expire request was lost: exams that Proctor changed {window.period} may be"
            f" missing from the CSV. Reason: {reason}.",
            **window.period.bounds(),
            reason=reason,
        )

    def _name(self) -> str:
        return f"Call {self._summary.calls + 1}"

    def _attempt(self) -> Batch:
        """One call, or two if Proctor no longer accepts a token that it accepted before."""
        token = self._token()
        try:
            return self._call(token)
        except TokenRejected as rejected:
            if token != self._accepted:
                raise
            log_event(logging.INFO, "token_rejected", f"{rejected}; requesting a new one.")
        return self._call(self._token())

    def _token(self) -> str:
        self._verify_may_go_on()
        return self._tokens.get()

    def _call(self, token: str) -> Batch:
        """One call, which a second signal ends."""
        self._verify_may_go_on()
        began, grace = Moment.now(), self._settings.read_timeout
        self._report.call_begins(began)
        try:
            batch = self._endpoint.expire(token)
        except Interrupted:
            if self._endpoint.sent:
                self.note_lost(began, "a second signal ended the call", grace)
            else:
                self._report.nothing_changed()
            raise
        except ResponseLost as lost:
            self.note_lost(began, str(lost), grace)
            self._lost += 1
            if self._lost > self._settings.max_lost_responses:
                raise self._too_many_lost() from None
            raise
        except (Transient, Failure) as error:
            self._report.nothing_changed()
            if isinstance(error, TokenRejected):
                self._tokens.discard()
            raise
        except Exception as error:
            self.note_lost(began, f"a bug ended the call ({type(error).__name__})", grace)
            raise
        self._accepted = token
        return batch

    def _too_many_lost(self) -> TooManyLost:
        advice = ""
        if not self._summary.calls:
            advice = (
                " If every call ends like this, check CLIENT_NAME, and in the logs of Proctor and its exam service"
                " whether the database, RabbitMQ, the config or the student service failed: exams may have been changed"
                " even so."
            )
        return TooManyLost(
            f"{self._lost} responses were lost, more than MAX_LOST_RESPONSES={self._settings.max_lost_responses}"
            f" allows.{advice}"
        )

    def _token_failure(self, rejected: TokenRejected) -> Failure:
        if self._accepted:
            return Unavailable(
                f"{rejected}, and new ones as well, although it accepted tokens earlier in this run. Check that Proctor"
                " can reach its token info service."
            )
        return CredentialsRejected(
            f"{rejected}, although it is new. Either AUTH_URL (with its realm) and the credentials do not belong to"
            " this Proctor, or Proctor cannot reach its token info service: check both."
        )

    def _verify_may_go_on(self) -> None:
        """Raises Interrupted after a signal, and _TimeIsUp once MAX_RUNTIME has passed."""
        self._stop.check()
        if time.monotonic() >= self._deadline:
            raise _TimeIsUp

    def _sleep(self, seconds: float) -> None:
        self._stop.sleep(max(min(seconds, self._deadline - time.monotonic()), 0))


class _RecentExams:
    """The exams reported last: no exam gets a second row, even if Proctor reports it again."""

    def __init__(self) -> None:
        # Each exam by its id, in two generations: the older one is forgotten as a whole. By all that distinguishes it
        # where it has no id, or one that another exam has, too.
        self._newer: dict[str | tuple[str, ...], Exam] = {}
        self._older: dict[str | tuple[str, ...], Exam] = {}

    def rows_of(self, batch: Batch) -> tuple[list[Exam], bool, frozenset[str]]:
        """The exams of a batch that get a row, whether any of them is new, and what is unexpected about the others.

        Records without an exam id may be different exams, so each gets a row. One that is the same as an earlier one
        does not count as new, or a run might never end.
        """
        rows: list[Exam] = []
        new = False
        anomalies: set[str] = set()
        newer, older = self._newer, self._older
        for exam in batch.exams:
            key: str | tuple[str, ...] = exam.examId or exam
            known = newer.get(key) or older.get(key)
            if known and _are_different(known, exam):
                anomalies.add(f"exam {exam.examId[:50]!r} again, of another student or assessment")
                newer[key] = known  # the id is remembered as long as the other exams that have it
                key = exam[:4]
                known = newer.get(key) or older.get(key)
            if not known:
                newer[key] = exam
                rows.append(exam)
                new = True
            elif not exam.examId:
                rows.append(exam)
            elif known.updatedExamStatus != exam.updatedExamStatus:
                later = exam.updatedExamStatus[:50]
                anomalies.add(f"exam {exam.examId[:50]!r} again, with the status {later!r} (its first row stays)")
        if len(newer) >= _EXAMS_REMEMBERED:
            self._newer, self._older = {}, newer
        return rows, new, frozenset(anomalies)


def _are_different(one: Exam, other: Exam) -> bool:
    """Whether two records with the same id are of different exams: one that lacks a value may be any of them."""
    return any(mine and its and mine != its for mine, its in zip(one[:4], other[:4], strict=True))


def _log_once(anomalies: frozenset[str], logged: set[str]) -> None:
    for anomaly in sorted(anomalies - logged):
        if len(logged) < _ANOMALIES_LOGGED:
            logged.add(anomaly)
            log_event(
                logging.WARNING,
                "unexpected_response",
                f"Proctor sent {anomaly}. Each exam has its row in the CSV; this is logged once.",
            )
