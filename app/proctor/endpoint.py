"""One expire call, and how it can end.

Proctor's answer is the only report of the exams that it changed, so a call ends in one of three ways: with a `Batch`;
with a failure or a `Transient` after which no exam can have been expired unseen; or with `Lost`, where that is open.
"""

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

from app.exceptions import Failure, Misconfigured, ProtocolBroken, Refused
from app.logs import event
from app.settings import Settings
from app.proctor.transport import Answer, NoAnswer, Transient, Transport


class Exam(NamedTuple):
    """One exam as the CSV shows it, each cell as text. The field names are Proctor's, so are the CSV's."""

    assessmentKey: str  # noqa: N815
    assessmentId: str  # noqa: N815
    examId: str  # noqa: N815
    studentId: str  # noqa: N815
    updatedExamStatus: str  # noqa: N815


class Batch(NamedTuple):
    """What one call changed."""

    exams: list[Exam]
    more: bool
    oddities: list[str]


class Window(NamedTuple):
    """The time of a call whose answer may be lost: exams that Proctor changed in it may be in no CSV."""

    start: datetime
    end: datetime
    reason: str

    @classmethod
    def until_now(cls, start: datetime, reason: str, at_work: float = 0) -> Self:
        """The window of a call that ended just now, for us. Proctor may go on with it for `at_work` seconds."""
        cut_off = timedelta(milliseconds=1)  # where the end is told in milliseconds
        return cls(start, datetime.now(UTC) + timedelta(seconds=at_work) + cut_off, reason)


class Lost(Transient):
    """The call may have expired exams, and its answer is not there to tell which."""

    def __init__(self, window: Window, wait: float = 0) -> None:
        super().__init__(window.reason, wait)
        self.window = window


class TokenRejected(Refused):
    """Proctor answered 401: the token is not, or no longer, valid."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url} answered 401 to a token that is new. Check that AUTH_URL (with its realm) and the credentials are"
            " the ones for this Proctor."
        )


class Proctor:
    """The exam expiry service of one Proctor."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._url = settings.expire_url
        self._at_work = settings.read_timeout
        self._transport = transport

    def expire(self, token: str) -> Batch:
        """Have Proctor expire the next overdue exams, up to its limit (100 by default).

        Raises:
            Lost: exams may have been expired whose report did not arrive.
            Transient: Proctor was not reached or turned the call away; nothing was expired.
            TokenRejected: 401; nothing was expired. Its text is for a token that is new.
            Failure: another try would end the same way; nothing was expired.
        """
        start, began = datetime.now(UTC), time.monotonic()
        try:
            answer = self._transport.request(
                "POST", self._url, data=b'""', headers={"Content-Type": "application/json", **_bearer(token)}
            )
        except NoAnswer as error:
            # Proctor may still be at work on the call: leave it as much time as the settings allow.
            raise Lost(Window.until_now(start, str(error), self._at_work), wait=float("inf")) from None
        event(logging.DEBUG, "call", f"Proctor answered {answer} after {time.monotonic() - began:.3f} s.")
        if answer.status == 200 and (batch := _batch(answer.body)):
            return batch
        if answer.status == 401:
            raise TokenRejected(self._url)
        if answer.status in (429, 503):
            raise Transient(f"Proctor turned the call away: {answer}", answer.retry_after)
        if failure := _wrong(answer, self._url):
            raise failure
        reason = f"Proctor answered {answer}" + (", which is not its list of exams" if answer.status == 200 else "")
        if answer.status not in (200, 500):  # not Proctor's own: a gateway, which knows no more than that
            raise Lost(Window.until_now(start, reason, self._at_work), wait=float("inf"))
        raise Lost(Window.until_now(start, reason))

    def probe(self, token: str) -> None:
        """Prove URL and token without expiring anything: Proctor maps POST alone, so a GET that is let in gets 405.

        Raises:
            Transient, TokenRejected, Failure: as for `expire`.
        """
        answer = self._transport.request("GET", self._url, headers=_bearer(token))
        if answer.status == 405 and "POST" in answer.headers.get("Allow", ""):
            return
        if answer.status == 401:
            raise TokenRejected(self._url)
        if answer.status == 429 or answer.status >= 500:
            raise Transient(f"Proctor answered {answer}", answer.retry_after)
        raise _wrong(answer, self._url) or Misconfigured(
            f"{self._url} is not Proctor's expire endpoint: a GET got {answer} instead of 405. Check PROCTOR_URL."
        )


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _wrong(answer: Answer, url: str) -> Failure | None:
    """The failure behind an answer that comes before any exam is touched; None for every other one."""
    status = answer.status
    if 300 <= status < 400:
        target = answer.headers.get("Location", "nowhere").partition("?")[0]
        if target.endswith(url.rpartition("/")[2]):
            return Misconfigured(f"{url} has moved to {target}. Set PROCTOR_URL to where it is now.")
        return Refused(
            f"Proctor did not take the token and redirected {url} to {target}, to sign in. Check that PROCTOR_URL and"
            " AUTH_URL belong together, and that nothing in between removes the Authorization header."
        )
    if status == 200 and b"SAMLRequest" in answer.body:
        return Refused(
            f"Proctor did not take the token and answered {url} with a page to sign in. Check that PROCTOR_URL and"
            " AUTH_URL belong together, and that nothing in between removes the Authorization header."
        )
    if status == 403:
        return Refused(f"{url} answered {answer}: the token is valid, but its user may not expire exams.")
    if status in (404, 405):
        return Misconfigured(f"There is no expire endpoint at {url}: it answered {answer}. Check PROCTOR_URL.")
    if 400 <= status < 500 and status != 408:  # gateways say 408 for an answer that takes too long
        return ProtocolBroken(f"{url} answered {answer}, which Proctor does not. Check what stands in front of it.")
    return None


class _Number(str):
    """A JSON number as it was sent: no digit of an id gets lost."""


_KINDS = (str, str, str, _Number, str)  # of an exam's fields
_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number)


def _batch(body: bytes) -> Batch | None:
    """The batch in an answer's body, or None where it is not the JSON that Proctor sends."""
    oddities: list[str] = []
    try:
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = body.decode("utf-8", "replace")
            oddities.append("an answer that is not UTF-8")
        content = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("expiredExams"), list):
        return None
    exams = [_exam(record, oddities) for record in content["expiredExams"]]
    more = content.get("additionalExamsToExpire")
    if not isinstance(more, bool):
        # Going on is safe: the run ends when an answer brings nothing new.
        oddities.append("an answer without additionalExamsToExpire")
        more = True
    return Batch(exams, more, oddities)


def _exam(record: Any, oddities: list[str]) -> Exam:
    """A record as a row: written as well as it can be, whatever it is."""
    if not isinstance(record, dict):
        oddities.append("a record that is no object (written as its examId)")
        return Exam("", "", _cell(record), "", "")
    values = tuple(map(record.get, Exam._fields))
    if tuple(map(type, values)) == _KINDS and len(record) == len(values):
        return Exam._make(values)
    for name, value, kind in zip(Exam._fields, values, _KINDS, strict=True):
        if value is None:
            oddities.append(f"a record without {name}")
        elif type(value) is not kind:
            oddities.append(f"a record whose {name} is not {'a number' if kind is _Number else 'text'}")
    unknown = record.keys() - set(Exam._fields)
    oddities += [f"a record with the unknown field {name[:100]!r} (left out)" for name in unknown]
    return Exam(*map(_cell, values))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "(nested too deeply)"
