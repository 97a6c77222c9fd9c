"""An embedded Proctor with its token endpoint, for demonstrations and tests.

It behaves like SmarterApp's TDS_Proctor in front of TDS_ExamService as far as the expire call goes: which exams a call
takes, what it answers, how it turns callers away. It fails on demand, by a script or at random from a seed, and keeps
a record of every call: what it changed, and whether the answer went out whole.
"""

import argparse
import base64
import json
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

FAULTS = """\
A fault is one of
  ok                            none
  STATUS, STATUS:SECONDS        an HTTP status before any work, with Retry-After if SECONDS (or `date`) are given
  STATUS-after, STATUS-half     an HTTP status after the work, or after the first of its two updates
  reset-before, reset-after     the connection is reset, before or after the work
  silence-before, silence-after no answer until the caller gives up
  hold                          after the work, a good answer once `release` is set (tests only)
  cut-head, cut-body            the connection ends in the middle of the headers or of the body
  drip                          an answer that never ends, a byte now and then
  close                         a good answer, then the idle connection is closed
  repeat                        the answer before this one again, without any work
  sign-in                       200 with a page that posts to the identity provider, without any work
  html, not-json, not-utf8, no-list, null-list, no-flag, odd-records, huge
                                after the work, 200 with a body that is not what Proctor sends
"""
RANDOM_FAULTS = (
    "503 503:0 429:0 429:date 401 500 500-after 500-half 502-after 504-after reset-before reset-after cut-head cut-body"
    " close repeat html not-json no-list null-list no-flag"
).split()

_EXPIRE = "/proctor/Services/exams/expire/"
_TOKEN = "/auth/oauth2/access_token"
_SIGN_IN = "https://sso.example.org/auth/SSOPOST/metaAlias/idp"
_PAGE = b"<!DOCTYPE html><html><head><title>Error</title></head><body><h1>%s</h1></body></html>"


@dataclass
class World:
    """What the embedded Proctor holds and how it behaves."""

    exams: int = 250
    not_due: int = 0
    limit: int = 100
    client_name: str = "SBAC_PT"
    seed: int = 1
    latency: float = 0.0
    token_seconds: int = 3600
    token_calls: int = 0
    with_status: bool = True
    faults: list[str] = field(default_factory=list)
    fault_rate: float = 0.0
    token_faults: list[str] = field(default_factory=list)
    credentials: dict[str, str] = field(
        default_factory=lambda: {
            "client_id": "proctor-client",
            "client_secret": "client-secret",
            "username": "prime.user@example.org",
            "password": "pass word$&%+\u00e9",
        }
    )

    def __post_init__(self) -> None:
        self.faults, self.token_faults = list(self.faults), list(self.token_faults)


class Simulator:
    """The embedded Proctor, serving while the `with` block lasts."""

    def __init__(
        self,
        world: World,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: tuple[str, str] | None = None,
        record_file: str | None = None,
    ) -> None:
        """`certificate` is a pair of PEM files, certificate and key; with it the service is https."""
        self.world = world
        self.record: list[dict[str, Any]] = []
        self.token_requests = 0
        self.held = threading.Event()
        self.release = threading.Event()
        self._exams = _Exams(world)
        self._random = random.Random(world.seed)
        self._tokens: dict[str, tuple[float, int]] = {}
        self._last_body = b""
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._record_file = record_file
        self._server = _Server((host, port), type("Handler", (_Handler,), {"simulator": self}))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.tls = context
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if certificate else 'http'}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def settings(self) -> dict[str, str]:
        """The settings that lead a job here."""
        return {
            "PROCTOR_URL": self.url,
            "CLIENT_NAME": self.world.client_name,
            "AUTH_URL": f"{self.url}{_TOKEN}?realm=/sbac",
            **{f"AUTH_{name.upper()}": value for name, value in self.world.credentials.items()},
        }

    def begin(self, entry: dict[str, Any]) -> None:
        """Add a call to the record."""
        with self._changed:
            self.record.append(entry)

    def end(self, entry: dict[str, Any]) -> None:
        """Complete a call's entry, and append it to the record file as a JSON line."""
        with self._changed:
            entry["end"] = _now()
            self._changed.notify_all()
            if self._record_file:
                with open(self._record_file, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")

    def wait_idle(self) -> None:
        """Wait until every call that began has ended, also those whose caller has gone."""
        with self._changed:
            self._changed.wait_for(lambda: all("end" in entry for entry in self.record))

    def grant(self) -> tuple[str, int]:
        """A new token and its lifetime in seconds."""
        token = f"demo-{self.token_requests}-{self._random.getrandbits(64):016x}"
        self._tokens[token] = (time.monotonic() + self.world.token_seconds, self.world.token_calls)
        return token, self.world.token_seconds

    def admits(self, token: str) -> bool:
        """Whether a token is known and alive; uses one of its calls up where they are counted."""
        until, calls = self._tokens.get(token, (0.0, 0))
        if time.monotonic() >= until:
            return False
        if self.world.token_calls:
            if not calls:
                return False
            self._tokens[token] = (until, calls - 1)
        return True

    def next_fault(self) -> str:
        """The next of the script; behind its end, one at random as often as the world wants."""
        if self.world.faults:
            return self.world.faults.pop(0)
        if self._random.random() < self.world.fault_rate:
            return self._random.choice(RANDOM_FAULTS)
        return "ok"

    def work(self, half: bool) -> tuple[list[str], bytes]:
        """What one call does: the ids of the exams that it changed, and the body of its answer."""
        with self._lock:
            due, more = self._exams.select()
        if self.world.latency:
            time.sleep(self.world.latency)
        with self._lock:
            changed = self._exams.change(due, only_completed=half)
            self._random.shuffle(changed)  # the service collects them into a set
        exams = [self._exams.describe(number) for number in changed]
        body = json.dumps({"additionalExamsToExpire": more, "expiredExams": exams}).encode()
        return [exam["examId"] for exam in exams], body

    def repeated(self, body: bytes | None = None) -> bytes:
        """The body of the last answer, once `body` has been given as that."""
        self._last_body = body or self._last_body or b'{"additionalExamsToExpire": true, "expiredExams": []}'
        return self._last_body


class _Exams:
    """The started exams, oldest first: those that are not due for long yet, then the overdue ones."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._first = world.not_due
        self._end = world.not_due + world.exams
        self._done: set[int] = set()

    def _open(self) -> Iterator[int]:
        yield from range(self._world.not_due)
        yield from (number for number in range(self._first, self._end) if number not in self._done)

    def select(self) -> tuple[list[int], bool]:
        """The due ones among the first `limit`, and whether there are more than `limit`."""
        first = list(islice(self._open(), self._world.limit + 1))
        due = [number for number in first[: self._world.limit] if number >= self._world.not_due]
        return due, len(first) > self._world.limit

    def change(self, due: list[int], only_completed: bool) -> list[int]:
        """Give exams their final status; returns them. Another call may have done so meanwhile: no harm."""
        changed = [number for number in due if self.is_completed(number) or not only_completed]
        self._done.update(changed)
        while self._first in self._done:
            self._done.discard(self._first)
            self._first += 1
        return changed

    def is_completed(self, number: int) -> bool:
        """Whether the assessment is configured for force complete."""
        return number % 10 == 7

    def describe(self, number: int) -> dict[str, Any]:
        """An exam as the service reports it."""
        assessment = f"SBAC-Perf-ELA-{3 + number % 9}"
        exam = {
            "studentId": 100_000 + number,
            "assessmentKey": f"(SBAC_PT){assessment}-Spring-2017-2018",
            "assessmentId": assessment,
            "examId": f"{self._world.seed & 0xFFFFFFFF:08x}-5bac-4000-8000-{number:012x}",
        }
        if self._world.with_status:
            exam["updatedExamStatus"] = "completed" if self.is_completed(number) else "expired"
        return exam


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if not self.tls:
            return super().finish_request(request, client_address)
        with self.tls.wrap_socket(request, server_side=True) as wrapped:  # here, in the connection's own thread
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Callers that go away are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    simulator: Simulator

    def log_message(self, *_: object) -> None:
        """The record says it all."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if path == _TOKEN:
            self._token(body)
        elif path.startswith(_EXPIRE) and "/" not in path[len(_EXPIRE) :]:
            self._expire(unquote(path[len(_EXPIRE) :]))
        else:
            self._page(404)

    def _expire(self, client_name: str) -> None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            return self._page(302, {"Location": f"{_SIGN_IN}?SAMLRequest=fVJ"})
        if self.command == "GET":
            return self._page(405, {"Allow": "POST"}) if self.simulator.admits(token) else self._invalid_token()
        fault = self.simulator.next_fault()
        entry: dict[str, Any] = {"fault": fault, "expired": [], "start": _now(), "delivered": False}
        self.simulator.begin(entry)
        try:
            if fault == "401" or not self.simulator.admits(token):
                self._invalid_token()
            elif client_name != self.simulator.world.client_name:
                self._page(500)
            else:
                self._misbehave(fault, entry)
            entry["delivered"] = True
        except OSError:
            self.close_connection = True
        finally:
            self.simulator.end(entry)

    def _misbehave(self, fault: str, entry: dict[str, Any]) -> None:
        """Do what the fault says; OSError where the answer does not go out whole."""
        name, _, when = fault.partition("-")
        if status := re.fullmatch(r"(\d{3})(?::(\w+))?", fault):
            return self._page(int(status[1]), _status_headers(status[1], status[2]))
        if fault == "repeat":
            return self._answer(200, self.simulator.repeated())
        if fault == "sign-in":
            form = b'<html><body><form action="%s"><input name="SAMLRequest" value="fVJ"/></form></body></html>'
            return self._answer(200, form % _SIGN_IN.encode(), {"Content-Type": "text/html"})
        if when == "before":
            return self._vanish(name)

        expired, body = self.simulator.work(half=when == "half")
        entry.update(expired=expired, changed=_now())
        if fault == "hold":
            self.simulator.held.set()
            self.simulator.release.wait()
        if name.isdecimal():
            return self._page(int(name))
        if when == "after":
            return self._vanish(name)
        if fault in _BODIES:
            body = _BODIES[fault](body)
        self.simulator.repeated(body)
        head = self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if fault == "cut-head":
            return self._cut(head[: len(head) // 2])
        if fault == "cut-body":
            return self._cut(head + body[: len(body) // 2])
        if fault == "drip":
            self._send(self._head(200, {"Content-Type": "application/json", "Content-Length": "1000000"}))
            while True:
                self._send(b" ")
                time.sleep(0.02)
        if fault == "html":
            return self._page(200)
        self.close_connection = fault == "close"
        self._send(head + body)

    def _token(self, body: bytes) -> None:
        simulator = self.simulator
        simulator.token_requests += 1
        fault = simulator.world.token_faults.pop(0) if simulator.world.token_faults else "ok"
        try:
            if status := re.fullmatch(r"(\d{3})(?::(\w+))?", fault):
                return self._page(int(status[1]), _status_headers(status[1], status[2]))
            if fault in ("reset", "silence"):
                return self._vanish(fault)
            if fault == "html":
                return self._page(200)
            if fault == "no-token":
                return self._json(200, {"token_type": "Bearer"})
            self._json(*self._granted(body))
        except OSError:
            self.close_connection = True

    def _granted(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """The answer to a token request, checked as OpenAM does."""
        if self.command != "POST" or self.headers.get_content_type() != "application/x-www-form-urlencoded":
            return 400, {"error": "invalid_request", "error_description": "Not a form"}
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        known = self.simulator.world.credentials
        client = (form.get("client_id"), form.get("client_secret"))
        basic = re.fullmatch(r"Basic (.+)", self.headers.get("Authorization", ""))
        if basic:
            name, _, secret = base64.b64decode(basic[1]).decode().partition(":")
            client = (unquote_plus(name), unquote_plus(secret))
        if client != (known["client_id"], known["client_secret"]):
            return 401, {"error": "invalid_client", "error_description": "Client authentication failed"}
        grant = form.get("grant_type")
        if grant not in ("password", "client_credentials"):
            return 400, {"error": "unsupported_grant_type", "error_description": "Grant type is not supported"}
        user = (form.get("username"), form.get("password"))
        if grant == "password" and user != (known["username"], known["password"]):
            return 400, {"error": "invalid_grant", "error_description": "The provided access grant is invalid"}
        token, seconds = self.simulator.grant()
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": seconds, "scope": form.get("scope")}

    def _invalid_token(self) -> None:
        challenge = 'Bearer realm="sbac", error="invalid_token", error_description="Invalid access token"'
        self._json(401, {"error": "invalid_token", "error_description": "Invalid access token"}, challenge)

    def _json(self, status: int, content: dict[str, Any], challenge: str | None = None) -> None:
        headers = {"WWW-Authenticate": challenge} if challenge else {}
        self._answer(status, json.dumps(content).encode(), headers)

    def _page(self, status: int, headers: dict[str, str] | None = None) -> None:
        """An HTML page, as application servers and gateways have one for each status."""
        page = _PAGE % str(status).encode()
        self._answer(status, page, {"Content-Type": "text/html;charset=utf-8", **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        self._send(self._head(status, headers) + body)

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {responses.get(status, '')}", f"Date: {format_datetime(datetime.now(UTC), True)}"]
        return ("\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items())]) + "\r\n\r\n").encode()

    def _send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _cut(self, data: bytes) -> None:
        self._send(data)
        self.connection.shutdown(socket.SHUT_WR)
        raise ConnectionAbortedError

    def _vanish(self, how: str) -> None:
        """End the connection without an answer: with a reset, or when the caller gives up."""
        if how == "silence":
            self.connection.recv(1)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionAbortedError


def _status_headers(status: str, retry_after: str | None) -> dict[str, str]:
    headers = {"Location": f"{_SIGN_IN}?SAMLRequest=fVJ"} if status[0] == "3" else {}
    if retry_after:
        now = format_datetime(datetime.now(UTC), usegmt=True)
        headers["Retry-After"] = now if retry_after == "date" else retry_after
    return headers


def _odd_records(body: bytes) -> bytes:
    """The same exams, and records of every wrong shape beside them."""
    content = json.loads(body)
    content["expiredExams"] += [
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
    return json.dumps(content).encode()


_BODIES: dict[str, Callable[[bytes], bytes]] = {
    "not-json": lambda body: body[:-1],
    "not-utf8": lambda body: body.replace(b"SBAC-Perf-ELA-3", b"SBAC-Perf-\xc9LA-3"),
    "no-list": lambda _: b'{"additionalExamsToExpire": true}',
    "null-list": lambda _: b'{"additionalExamsToExpire": true, "expiredExams": null}',
    "no-flag": lambda body: body.replace(b'"additionalExamsToExpire"', b'"more"'),
    "odd-records": _odd_records,
    "huge": lambda body: body + b" " * 50_000_000,
}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _main() -> None:
    world = World()
    parser = argparse.ArgumentParser(
        prog="python -m app.simulator",
        description="An embedded Proctor with its token endpoint, for tests. Runs until it is ended.",
        epilog=FAULTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = lambda text: text.replace(",", " ").split()  # noqa: E731
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to bind (default: loopback)")
    add("--port", type=int, default=8080, help="port to bind, 0 for any (default: 8080)")
    add("--exams", type=int, default=world.exams, help="overdue exams (default: 250)")
    add("--not-due", type=int, default=0, help="started exams that are older, but not due (default: 0)")
    add("--limit", type=int, default=world.limit, help="expireExamLimit, exams a call (default: 100)")
    add("--client-name", default=world.client_name, help="the one client name known (default: SBAC_PT)")
    add("--latency", type=float, default=0.0, help="seconds that a call takes (default: 0)")
    add("--token-seconds", type=int, default=world.token_seconds, help="life of a token (default: 3600)")
    add("--token-calls", type=int, default=0, help="calls that a token is good for (default: any number)")
    add("--without-status", action="store_true", help="as before December 2017: no updatedExamStatus")
    add("--faults", type=words, default=[], metavar="FAULT,…", help="one for each expire call, in this order")
    add("--fault-rate", type=float, default=0.0, help="share of further calls with a fault at random (default: 0)")
    add("--token-faults", type=words, default=[], metavar="FAULT,…", help="STATUS, reset, silence, html or no-token")
    add("--seed", type=int, default=1, help="of exam ids and random faults (default: 1)")
    add("--record", metavar="FILE", help="append a JSON line for each expire call")
    add("--certificate", metavar="FILE", help="serve https with this certificate (PEM)")
    add("--key", metavar="FILE", help="and this key (PEM)")
    options = parser.parse_args()
    world = World(
        **{
            name: getattr(options, name)
            for name in "exams not_due limit client_name latency token_seconds token_calls faults fault_rate"
            " token_faults seed".split()
        },
        with_status=not options.without_status,
    )
    certificate = (options.certificate, options.key) if options.certificate else None
    with Simulator(world, options.host, options.port, certificate, options.record) as simulator:
        print(f"Proctor listens on {simulator.url}", file=sys.stderr, flush=True)
        for name, value in simulator.settings().items():
            print(f"{name}={value}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    _main()
