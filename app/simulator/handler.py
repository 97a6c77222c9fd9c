"""One HTTP connection to the embedded Proctor."""

import re
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from app.simulator import faults, responses, tokens
from app.simulator.responses import Response
from app.simulator.service import now

if TYPE_CHECKING:
    from app.simulator.server import Simulator

_CONTEXT = "/proctor/"
_EXPIRE = "/proctor/Services/exams/expire/"


class Handler(BaseHTTPRequestHandler):
    """Proctor as Tomcat serves it, and the token endpoint beside it. Faults act on a call through its handler."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    simulator: "Simulator"
    token = ""
    body = b""

    def log_message(self, *_: object) -> None:
        """The record has it all."""

    def do_POST(self) -> None:
        """Serve a request of any method."""
        self._began = time.monotonic()
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        try:
            if tokens.is_endpoint(self.simulator.scenario, path):
                self._token(content)
            else:
                self._proctor(path)
        except OSError:  # the client went away, or a fault ended the connection
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST  # noqa: N815

    @property
    def accept(self) -> str:
        return str(self.headers.get("Accept", "*/*"))

    def _proctor(self, path: str) -> None:
        """Verify the token first, whatever the path; then only the expire service exists."""
        if re.search("%2f|%5c", path, re.IGNORECASE):
            return self.send(responses.from_proctor(400, cookie=False))
        if not path.startswith(_CONTEXT):
            return self.send(responses.from_proctor(404, cookie=False))
        kind, _, self.token = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            form = self.simulator.scenario.sign_in == "form"
            return self.send(responses.sign_in_form() if form else responses.sign_in_redirect())
        prefix, _, name = path.rpartition("/")
        if f"{prefix}/" != _EXPIRE or not name:
            return self.send(self._rejection() or responses.tomcat_page(404))
        if self.command == "POST":
            return self._expire(client_name(name))
        self.send(self._rejection() or self._other_method())

    def _other_method(self) -> Response:
        """The response to any method but POST."""
        if self.simulator.scenario.older_methods:
            return responses.tomcat_page(405, {"Allow": "POST"})
        if self.command == "OPTIONS":
            return responses.from_proctor(200, {"Allow": "POST"})
        return responses.from_proctor(500)

    def _rejection(self) -> Response | None:
        """The response to a token that is not good; None to one that is."""
        match self.simulator.tokens.admit(self.token):
            case "unknown":
                return responses.invalid_token(self.token, self.accept)
            case "expired":
                return responses.token_expired(self.accept)
            case "foreign":
                return responses.foreign_audience(self.accept)
            case "good":
                return None

    def _expire(self, name: str) -> None:
        fault = self.simulator.next_fault()
        entry: dict[str, Any] = {"fault": fault, "expired": [], "updates": [], "start": now(), "delivered": False}
        self.simulator.begin(entry)
        try:
            if rejection := self._rejection():
                self.send(rejection)
            elif name != self.simulator.scenario.client_name:
                self.send(responses.from_proctor(500))
            else:
                self._fail(self.simulator.fault(fault), entry)
            entry["delivered"] = True
        finally:
            self.simulator.end(entry)

    def _fail(self, fault: faults.Fault, entry: dict[str, Any]) -> None:
        """Work as far as the fault lets the call come, and respond as it says."""
        if fault.work != "none":
            outcome = self.simulator.work(half=fault.work == "half")
            entry.update(expired=outcome.expired, updates=outcome.updates, changed=now())
            self.body = outcome.body
        if fault.late:
            time.sleep(max(0.0, self._began + self.simulator.scenario.late_seconds - time.monotonic()))
        fault.respond(self)

    def _token(self, content: bytes) -> None:
        simulator = self.simulator
        fault = simulator.next_token_fault()
        if fault == "reset":
            return self.reset()
        if fault == "silence":
            return self.silence()
        if response := tokens.fault_response(simulator.scenario, fault):
            return self.send(response)
        self.send(
            tokens.respond(
                simulator.scenario,
                simulator.grant,
                method=self.command,
                target=self.path,
                headers=self.headers,
                body=content,
            )
        )

    def ok(self, body: bytes) -> Response:
        """The good response with this body; one that no Proctor would send, for its size, is not compressed."""
        accepted = "gzip" in self.headers.get("Accept-Encoding", "")
        gzip = accepted and self.simulator.scenario.compresses and len(body) < 10_000_000
        return responses.expired_exams(self.repeatable(body), gzip)

    def repeatable(self, body: bytes) -> bytes:
        """The body, kept for the fault `repeat`."""
        return self.simulator.repeated(body)

    def send(self, response: Response) -> None:
        """Send a complete response; a HEAD gets its head alone."""
        self.close_connection = self.close_connection or response.closes
        self.send_bytes(response.head() if self.command == "HEAD" else response.encode())

    def send_bytes(self, data: bytes) -> None:
        self.connection.sendall(data)

    def cut(self, data: bytes) -> None:
        """Send a part of a response and end the connection."""
        self.send_bytes(data)
        self.connection.shutdown(socket.SHUT_WR)
        raise ConnectionAbortedError

    def reset(self) -> None:
        """End the connection with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionAbortedError

    def silence(self) -> None:
        """Wait until the client gives up."""
        self.connection.recv(1)
        self.reset()


def client_name(segment: str) -> str:
    """The client name that a path segment leads to: path parameters and the suffix are cut."""
    name = unquote(segment).partition(";")[0]
    stem, dot, _ = name.rpartition(".")
    return stem if dot else name
