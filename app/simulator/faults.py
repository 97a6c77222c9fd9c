"""The faults: what each does to a call, and when."""

import json
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from app.simulator import gateways, responses
from app.simulator.responses import Response

if TYPE_CHECKING:
    from app.simulator.handler import Handler as Call

Work = Literal["none", "half", "all"]


@dataclass(frozen=True)
class Fault:
    """How one call fails: how much of its work is done, and what the client gets."""

    text: str
    """One line for `--help`."""
    respond: Callable[["Call"], None]
    """Respond to the call; OSError where the response is not sent completely."""
    work: Work = "none"
    late: bool = False
    """Whether it responds only `late_seconds` after the request."""


def named(name: str) -> Fault:
    """The fault of that name.

    Raises:
        ValueError: there is none.
    """
    if fault := FAULTS.get(name):
        return fault
    if not (match := re.fullmatch(r"(\d{3})(?:-(slow|after|half|late))?(?::(\w+))?", name)):
        raise ValueError(f"{name!r} is not a fault")
    status, phase, retry_after = int(match[1]), match[2], match[3]
    work: Work = "half" if phase == "half" else "all" if phase in ("after", "late") else "none"
    return Fault(name, lambda call: call.send(_status(call, status, retry_after)), work, phase in ("slow", "late"))


def _status(call: "Call", status: int, retry_after: str | None) -> Response:
    """Proctor's own response where it has one, otherwise a gateway's page."""
    if status == 401:
        return responses.invalid_token(call.token, call.accept)
    if status == 500:
        return responses.from_proctor(500)
    return gateways.page(status, gateways.status_headers(status, retry_after))


def _sends(make: Callable[["Call"], Response]) -> Callable[["Call"], None]:
    return lambda call: call.send(make(call))


def _body(change: Callable[[bytes], bytes]) -> Callable[["Call"], None]:
    """Respond 200 with a body made of the good one."""
    return lambda call: call.send(call.ok(change(call.body)))


def _empty(body: str) -> Callable[["Call"], None]:
    return lambda call: call.send(call.ok(body.encode()))


def _cut(part: Callable[[Response], bytes]) -> Callable[["Call"], None]:
    """Send only a part of the good response, and end the connection."""
    return lambda call: call.cut(part(call.ok(call.body)))


def _head_line(response: Response) -> bytes:
    """The status line and the first header line."""
    return b"".join(response.head().splitlines(keepends=True)[:2])


def _cut_length(call: "Call") -> None:
    """Half of a body that has a length, as from a gateway that buffers."""
    good = gateways.plain(200, {"Content-Type": "application/json"}, call.repeatable(call.body))
    call.cut(good.head() + good.payload[: len(good.payload) // 2])


def _cut_gzip(call: "Call") -> None:
    """Complete HTTP with half of a gzip stream in it."""
    deflate = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    stream = deflate.compress(call.repeatable(call.body)) + deflate.flush()
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    call.send(gateways.plain(200, headers, stream[: len(stream) // 2]))


def _drip(call: "Call") -> None:
    call.send_bytes(Response(200, {"Content-Type": "application/json", "Content-Length": "1000000"}).head())
    while True:
        call.send_bytes(b" ")
        time.sleep(0.02)


def _close(call: "Call") -> None:
    call.send(call.ok(call.body))
    call.close_connection = True


def _early_hints(call: "Call") -> None:
    call.send_bytes(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    call.send(call.ok(call.body))


def _token_expired(call: "Call") -> None:
    call.simulator.tokens.expire(call.token)
    call.send(responses.token_expired(call.accept))


def _maintenance(status: int) -> Fault:
    return Fault(
        f"late, {status} with a maintenance page that a gateway sends for a timeout",
        _sends(lambda _: gateways.page(status, text="<p>Down for maintenance</p>")),
        "all",
        late=True,
    )


def _malformed_records(body: bytes) -> bytes:
    """The same exams, and records of every wrong shape beside them."""
    content = json.loads(body)
    records: list[Any] = [
        "00000000-0000-4000-8000-000000000001",
        None,
        {},
        {"examId": None, "studentId": {"id": 7}, "assessmentKey": ["a", "b"]},
        {
            "examId": "00000000-0000-4000-8000-000000000002",
            "studentId": 123456789012345678901234567890,
            "assessmentKey": 'a "quoted", key\r\nover two lines',
            "assessmentId": "=1+1\ud800",
            "updatedExamStatus": "paused",
            "segments": [1, 2],
        },
    ]
    content["expiredExams"] = (content.get("expiredExams") or []) + records
    return json.dumps(content).encode()


def _after_work(text: str, respond: Callable[["Call"], None]) -> Fault:
    return Fault(text, respond, "all")


FAULTS = {
    "ok": _after_work("no fault", _body(lambda body: body)),
    "token-expired": Fault("400 invalid_grant: the token has expired", _token_expired),
    "foreign-audience": Fault(
        "403 access_denied of Proctor", _sends(lambda call: responses.foreign_audience(call.accept))
    ),
    "sign-in": Fault("200 with a form that posts to the identity provider", _sends(lambda _: responses.sign_in_form())),
    "401-basic": Fault(
        "401 of a gateway that requires HTTP Basic",
        _sends(lambda _: gateways.page(401, {"WWW-Authenticate": 'Basic realm="gateway"'})),
    ),
    "plain-http": Fault(
        "400 of a port that speaks https",
        _sends(lambda _: gateways.page(400, text="<p>The plain HTTP request was sent to HTTPS port</p>")),
    ),
    "envoy-before": Fault(
        "Envoy's 503: remote connection failure",
        _sends(lambda _: gateways.envoy(gateways.CONNECTION_FAILURE)),
    ),
    "envoy-overflow": Fault("Envoy's 503: overflow", _sends(lambda _: gateways.envoy(gateways.OVERFLOW))),
    "varnish-before": Fault("Varnish's 503, with nothing sent to Proctor", _sends(lambda _: gateways.varnish())),
    "null-list": Fault(
        "200 with null, as if nothing was due", _empty('{"additionalExamsToExpire":true,"expiredExams":null}')
    ),
    "empty-list": Fault("the same with an empty list", _empty('{"additionalExamsToExpire":true,"expiredExams":[]}')),
    "no-list": Fault("the same without any list", _empty('{"additionalExamsToExpire":true}')),
    "repeat": Fault("the response before this one again", lambda call: call.send(call.ok(call.simulator.repeated()))),
    "reset-before": Fault("the connection is reset", lambda call: call.reset()),
    "silence-before": Fault("no response until the client gives up", lambda call: call.silence()),
    "reset-after": _after_work("the connection is reset", lambda call: call.reset()),
    "silence-after": _after_work("no response until the client gives up", lambda call: call.silence()),
    "varnish-after": _after_work("Varnish's 503, with its marks", _sends(lambda _: gateways.varnish())),
    "envoy-after": _after_work(
        "Envoy's 503: connection termination", _sends(lambda _: gateways.envoy(gateways.CONNECTION_TERMINATION))
    ),
    "maintenance-200": _maintenance(200),
    "maintenance-429": _maintenance(429),
    "maintenance-500": _maintenance(500),
    "maintenance-503": _maintenance(503),
    "cut-status": _after_work("the connection ends within the status line", _cut(lambda good: good.head()[:12])),
    "cut-lines": _after_work("the connection ends after a header line", _cut(_head_line)),
    "cut-head": _after_work(
        "the connection ends within a header line", _cut(lambda good: good.head()[: len(good.head()) // 2])
    ),
    "cut-blank": _after_work(
        "the connection ends before the empty line after the headers", _cut(lambda good: good.head()[:-2])
    ),
    "cut-body": _after_work(
        "the connection ends within a chunk", _cut(lambda good: good.head() + good.payload[: len(good.payload) // 2])
    ),
    "cut-chunk": _after_work(
        "the connection ends before the last chunk", _cut(lambda good: good.head() + good.payload[:-5])
    ),
    "cut-length": _after_work("the connection ends before Content-Length is reached", _cut_length),
    "cut-gzip": _after_work("a gzip stream that ends too early", _cut_gzip),
    "drip": _after_work("a response that never ends, a byte now and then", _drip),
    "close": _after_work("a good response, then the connection is closed unannounced", _close),
    "early-hints": _after_work("an interim response 103, then a good one", _early_hints),
    "html": _after_work("200 with a page", _sends(lambda _: gateways.page(200))),
    "not-json": _after_work("200 with JSON that is cut short", _body(lambda body: body[:-1])),
    "not-utf8": _after_work(
        "200 with a byte that is not UTF-8", _body(lambda body: body.replace(b"SBAC-Perf-ELA-3", b"SBAC-Perf-\xc9LA-3"))
    ),
    "no-flag": _after_work(
        "200 without additionalExamsToExpire", _body(lambda body: body.replace(b"additionalExamsToExpire", b"more"))
    ),
    "malformed-records": _after_work("200 with malformed records among the good ones", _body(_malformed_records)),
    "huge": _after_work("200 with 50 MB of spaces at its end", _body(lambda body: body + b" " * 50_000_000)),
}

RANDOM_FAULTS = (
    "503 503:0 429:0 429:date 401 token-expired envoy-before envoy-overflow varnish-before 500 500-after 500-half"
    " 502-after 504-after envoy-after varnish-after maintenance-500 reset-before reset-after cut-head cut-status"
    " cut-blank cut-body cut-chunk cut-length cut-gzip close early-hints repeat html not-json no-flag"
).split()
"""The faults that calls meet at random."""

LATE_FAULTS = "503-late 429-late 503-late:0 maintenance-503 maintenance-429".split()
"""A 503 or 429 after the work, which only the time reveals: for clients whose READ_TIMEOUT suits `late_seconds`."""


def _lines(work: Work) -> str:
    return "".join(f"  {name:<17} {fault.text}\n" for name, fault in FAULTS.items() if fault.work == work)


FAULTS_HELP = f"""\
A fault is a status or a name.
  STATUS            before any work: Proctor's own 401 and 500, a gateway's page for others
  STATUS-slow       the same, late (see --late-seconds)
  STATUS-after      after the work
  STATUS-half       after the first of the two updates
  STATUS-late       after the work, late
With :SECONDS or :date after it, such as 503-late:7, the response has a Retry-After.
Before any work:
{_lines("none")}\
After the work:
{_lines("all")}"""
