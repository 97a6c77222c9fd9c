"""The embedded Proctor as a server, with the record of its calls."""

import json
import random
import ssl
import threading
import time
from http.server import ThreadingHTTPServer
from typing import Any, Self

from app.simulator import faults, tokens
from app.simulator.handler import Handler
from app.simulator.scenario import Scenario
from app.simulator.service import ExamService, Outcome, now


class Simulator:
    """The embedded Proctor, serving while the `with` block lasts.

    `record` has one dictionary for each expire call:
    `fault`      the name of the fault that it met, or `ok`
    `expired`    the ids of the exams that it changed, in the order in which a good response has them
    `updates`    its updates: `status`, `at` and `exams` (ids) of each
    `start`, `changed`, `end`  the times (ISO 8601, UTC) at which it was received, its work was done, and it ended
    `delivered`  whether the response was sent completely
    """

    def __init__(
        self,
        scenario: Scenario,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: tuple[str, str] | None = None,
        record_file: str | None = None,
    ) -> None:
        """`certificate` is a pair of PEM files, certificate and key; with it the service is https.

        Raises:
            ValueError: the scenario names a fault that does not exist.
        """
        for fault in scenario.faults:
            self.fault(fault)
        for fault in scenario.token_faults:
            tokens.fault_response(scenario, fault)
        self.scenario = scenario
        self.record: list[dict[str, Any]] = []
        self.token_requests = 0
        self.tokens = tokens.Tokens(scenario)
        self._service = ExamService(scenario)
        self._random = random.Random(f"faults {scenario.seed}")
        self._last_body = self._service.body([], more=True)
        self._lock = threading.Lock()
        self._record_file = record_file
        self._server = _Server((host, port), type("Handler", (Handler,), {"simulator": self}))
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
        """The settings that lead a run here."""
        return {
            "PROCTOR_URL": self.url,
            "CLIENT_NAME": self.scenario.client_name,
            "AUTH_URL": self.url + tokens.PATHS[self.scenario.token_endpoint],
            **{f"AUTH_{name.upper()}": value for name, value in self.scenario.credentials.items()},
        }

    def begin(self, entry: dict[str, Any]) -> None:
        """Add a call to the record."""
        self.record.append(entry)

    def fault(self, name: str) -> faults.Fault:
        """The fault of that name.

        Raises:
            ValueError: there is none.
        """
        return faults.named(name)

    def work(self, half: bool) -> Outcome:
        """Do what one call does, or only the first of its two updates."""
        with self._lock:
            due, more = self._service.select()
        if self.scenario.latency:
            time.sleep(self.scenario.latency)
        with self._lock:
            return self._service.change(due, more, half)

    def end(self, entry: dict[str, Any]) -> None:
        """Complete a call's entry, and append it to the record file as a JSON line."""
        with self._lock:
            entry["end"] = now()
            if self._record_file:
                with open(self._record_file, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")

    def grant(self) -> tuple[str, int]:
        """A new token and its lifetime in seconds."""
        return self.tokens.issue()

    def next_fault(self) -> str:
        """The next of the script; after its end, one at random as often as the scenario wants."""
        with self._lock:
            if self.scenario.faults:
                return self.scenario.faults.pop(0)
            if self._random.random() < self.scenario.fault_rate:
                return self._random.choice(faults.RANDOM_FAULTS)
            return "ok"

    def next_token_fault(self) -> str:
        """The next fault of the script for token requests; counts the request."""
        with self._lock:
            self.token_requests += 1
            return self.scenario.token_faults.pop(0) if self.scenario.token_faults else "ok"

    def repeated(self, body: bytes | None = None) -> bytes:
        """The body of the last good response, once `body` has been given as that."""
        self._last_body = body or self._last_body
        return self._last_body


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
        """Ignore it: clients are expected to disconnect."""
