"""A plain client of the embedded Proctor."""

import http.client
import json
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from app.simulator import Simulator
from tests.embedded import EmbeddedProctor
from tests.support import PATIENCE

EXPIRE = "/proctor/Services/exams/expire/"
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Response:
    """A complete response."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> dict[str, Any]:
        content = json.loads(self.body)
        assert isinstance(content, dict)
        return content

    def is_page(self) -> bool:
        return self.headers.get_content_type() == "text/html" and b"<html" in self.body

    def is_empty(self) -> bool:
        return self.headers["Content-Length"] == "0" and self.headers["Content-Type"] is None


def connect(simulator: Simulator) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", simulator.port, timeout=PATIENCE)


def send(simulator: Simulator, method: str, path: str, body: str = "", **headers: str) -> Response:
    """One request on a connection of its own; an underscore in a header's name stands for a hyphen."""
    with closing(connect(simulator)) as connection:
        connection.request(
            method, path, body.encode(), {name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        return Response(response.status, response.reason, response.headers, response.read())


def bearer(simulator: Simulator) -> dict[str, str]:
    """The header with a new token."""
    return {"Authorization": f"Bearer {simulator.grant()[0]}"}


def expire(simulator: Simulator, method: str = "POST", client_name: str = "SBAC_PT", **headers: str) -> Response:
    """One expire call, with a new token unless other headers are given."""
    return send(simulator, method, EXPIRE + quote(client_name, safe=""), '""', **(headers or bearer(simulator)))


def ask_token(simulator: Simulator, path: str | None = None, **change: str | None) -> Response:
    """One token request, right but for what is changed; None leaves a field out."""
    url = urlsplit(simulator.settings()["AUTH_URL"])
    fields = {"grant_type": "password", **simulator.scenario.credentials, **change}
    form = urlencode({name: value for name, value in fields.items() if value is not None})
    return send(simulator, "POST", path or f"{url.path}?{url.query}", form, **FORM)


def numbers(response: Response) -> list[int]:
    """The numbers of the exams that a response reports; ids of guests are negative."""
    return sorted(abs(exam["studentId"]) - 100_000 for exam in response.json()["expiredExams"] or [])


def left(simulator: Simulator) -> list[int]:
    """The numbers of the exams that one more call takes."""
    return numbers(expire(simulator))


def recorded(simulator: EmbeddedProctor) -> dict[str, Any]:
    """The record of the next call, once it has ended."""
    return simulator.ended.get(timeout=PATIENCE)


def outcome(simulator: EmbeddedProctor) -> tuple[int, bool]:
    """How many exams the next recorded call changed, and whether its response was sent completely."""
    entry = recorded(simulator)
    return len(entry["expired"]), entry["delivered"]
