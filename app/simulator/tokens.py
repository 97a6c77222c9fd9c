"""The token endpoint (OpenAM or Keycloak), and which tokens Proctor accepts."""

import base64
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlsplit

from app.simulator import gateways
from app.simulator.responses import Response, compact
from app.simulator.scenario import Scenario

PATHS = {
    "openam": "/auth/oauth2/access_token?realm=/sbac",
    "keycloak": "/realms/sbac/protocol/openid-connect/token",
}
"""Path and query of the token endpoint."""

OAUTH_ERRORS = (
    "server_error temporarily_unavailable invalid_grant invalid_client invalid_scope unauthorized_client"
).split()

TOKEN_FAULTS_HELP = """\
A fault of the token endpoint is one of
  ok                            none
  STATUS, STATUS:SECONDS        a page with that status, with Retry-After if SECONDS (or `date`) are given
  server_error, temporarily_unavailable, invalid_grant, invalid_client, invalid_scope, unauthorized_client
                                400 with that OAuth error, also for right credentials
  unknown-realm                 404 with the JSON of a realm that does not exist
  redirect                      302 to a login page
  reset, silence                the connection is reset; no response until the client gives up
  html, no-token                200 with a page; 200 with JSON that lacks the token
"""

Standing = Literal["good", "unknown", "expired", "foreign"]


@dataclass
class _Token:
    until: float
    calls: int
    foreign: bool
    accepted: bool = False


class Tokens:
    """The tokens issued. Proctor knows one that it has accepted before, also when it has expired since."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = random.Random(f"tokens {scenario.seed}")
        self._issued: dict[str, _Token] = {}
        self._lock = threading.Lock()

    def issue(self) -> tuple[str, int]:
        """A new token and its lifetime in seconds."""
        scenario = self._scenario
        with self._lock:
            name = f"demo-{len(self._issued)}-{self._random.getrandbits(64):016x}"
            until = time.monotonic() + scenario.token_seconds
            self._issued[name] = _Token(until, scenario.token_calls, scenario.foreign_audience)
        return name, scenario.token_seconds

    def admit(self, name: str) -> Standing:
        """What Proctor finds of a token; uses one of its calls up where they are counted."""
        with self._lock:
            token = self._issued.get(name)
            if not token:
                return "unknown"
            if time.monotonic() >= token.until:
                return "expired" if token.accepted else "unknown"
            if token.foreign:
                return "foreign"
            token.accepted = True
            if self._scenario.token_calls:
                token.calls -= 1
                if not token.calls:
                    token.until = 0.0
            return "good"

    def expire(self, name: str) -> None:
        """Have a token expire now."""
        with self._lock:
            self._issued[name].until = 0.0


def is_endpoint(scenario: Scenario, path: str) -> bool:
    """Whether a path is that of the token endpoint, whatever the realm."""
    if scenario.token_endpoint == "openam":
        return path == urlsplit(PATHS["openam"]).path
    return re.fullmatch(r"/realms/[^/]+/protocol/openid-connect/token", path) is not None


def respond(
    scenario: Scenario, issue: Callable[[], tuple[str, int]], *, method: str, target: str, headers: Message, body: bytes
) -> Response:
    """The response to a token request, checked as the endpoint of the scenario does."""
    keycloak = scenario.token_endpoint == "keycloak"
    url = urlsplit(target)
    realm = url.path.split("/")[2] if keycloak else parse_qs(url.query).get("realm", [""])[0].strip("/")
    if realm != "sbac":
        return unknown_realm(scenario)
    if method != "POST" or headers.get_content_type() != "application/x-www-form-urlencoded":
        return _error(400, "invalid_request", "The request is not a form that was posted")
    form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    known = scenario.credentials
    name, secret = _client(form, headers.get("Authorization", ""), decodes=keycloak)
    if (name, secret) != (known["client_id"], known["client_secret"]):
        if keycloak:
            error = "unauthorized_client" if name == known["client_id"] else "invalid_client"
            return _error(401, error, "Invalid client or Invalid client credentials")
        return _error(400, "invalid_client", "Client authentication failed")
    grant = form.get("grant_type")
    if grant not in ("password", "client_credentials"):
        return _error(400, "unsupported_grant_type", "Grant type is not supported")
    user = (form.get("username"), form.get("password"))
    if grant == "password" and user != (known["username"], known["password"]):
        return _error(401 if keycloak else 400, "invalid_grant", "The provided access grant is invalid")
    if scenario.scopes is not None and not set(form.get("scope", "").split()) <= set(scenario.scopes.split()):
        return _error(400, "invalid_scope", "Unknown or invalid scope")
    token, seconds = issue()
    content = {"access_token": token, "token_type": "Bearer", "expires_in": seconds, "scope": form.get("scope")}
    return _json(200, content)


def fault_response(scenario: Scenario, fault: str) -> Response | None:
    """The response of a token fault; None for `ok` and for those that send nothing.

    Raises:
        ValueError: there is no such fault.
    """
    if match := re.fullmatch(r"(\d{3})(?::(\w+))?", fault):
        return gateways.page(int(match[1]), gateways.status_headers(int(match[1]), match[2]))
    if fault in OAUTH_ERRORS:
        return _error(400, fault, "The request could not be fulfilled")
    if fault == "unknown-realm":
        return unknown_realm(scenario)
    if fault == "redirect":
        return gateways.page(302, {"Location": "https://sso.example.org/login"})
    if fault == "html":
        return gateways.page(200)
    if fault == "no-token":
        return _json(200, {"token_type": "Bearer"})
    if fault in ("ok", "reset", "silence"):
        return None
    raise ValueError(f"{fault!r} is not a fault of the token endpoint")


def unknown_realm(scenario: Scenario) -> Response:
    """404 with JSON, for a realm that does not exist or has no provider."""
    if scenario.token_endpoint == "keycloak":
        return _json(404, {"error": "Realm does not exist"})
    return _error(404, "not_found", "There is no provider in this realm")


def _client(form: dict[str, str], authorization: str, decodes: bool) -> tuple[str | None, str | None]:
    """Id and secret of the client: HTTP Basic, which only `decodes` percent-decodes, or fields of the form."""
    if not (basic := re.fullmatch(r"Basic (.+)", authorization)):
        return form.get("client_id"), form.get("client_secret")
    try:
        name, _, secret = base64.b64decode(basic[1]).decode().partition(":")
    except ValueError:
        return None, None
    return (unquote_plus(name), unquote_plus(secret)) if decodes else (name, secret)


def _error(status: int, error: str, description: str) -> Response:
    return _json(status, {"error": error, "error_description": description})


def _json(status: int, content: dict[str, Any]) -> Response:
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache", "Content-Type": "application/json"}
    return gateways.plain(status, headers, compact(content))
