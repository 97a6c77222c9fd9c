"""The bearer token: get one, keep it, renew it shortly before it expires.

OAuth 2.0 (RFC 6749): the grants `password` (4.3) and `client_credentials` (4.4), client authentication in the form or
by HTTP Basic (2.3.1).
"""

import json
import logging
import re
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

from requests.auth import HTTPBasicAuth

from app.exceptions import Misconfigured, ProtocolBroken, Refused, Unavailable
from app.logs import event
from app.proctor.retries import with_retries
from app.settings import Settings
from app.proctor.transport import Answer, Transient, Transport

# A token is renewed when this much of its life is left: half a minute, or a tenth of a short life.
_MARGIN_SECONDS = 30.0
_MARGIN_PART = 0.1


class Tokens:
    """The access token of a run."""

    def __init__(
        self,
        settings: Settings,
        transport: Transport,
        sleep: Callable[[float], None],
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._sleep = sleep
        self._on_retry = on_retry
        self._token: str | None = None
        self._renew_at = 0.0

    def get(self) -> str:
        """A token that is not about to expire; asks for one where there is none.

        Raises:
            Refused: the credentials are not accepted.
            Misconfigured: AUTH_URL points at the wrong place.
            ProtocolBroken: the answer holds no token.
            Unavailable: the token endpoint cannot be used, after all attempts.
        """
        if self._token is None or time.monotonic() >= self._renew_at:
            try:
                self._token, lifetime = with_retries(
                    self._request, "No token", self._settings, self._sleep, self._on_retry
                )
            except Transient as reason:
                raise Unavailable(
                    f"No token: {reason}. Attempts: {self._settings.max_attempts}. Check that {_where(self._settings)}"
                    " is up and reached from here."
                ) from None
            self._renew_at = time.monotonic() + lifetime - min(_MARGIN_SECONDS, lifetime * _MARGIN_PART)
            event(
                logging.DEBUG,
                "token",
                f"Got a token, valid for {lifetime:g} s.",
                lifetime_seconds=lifetime if lifetime < float("inf") else None,
            )
        return self._token

    def discard(self) -> None:
        """Forget a token that was turned away; the next `get` asks for a new one."""
        self._token = None

    def _request(self) -> tuple[str, float]:
        """One token request: the token and its lifetime in seconds, endless where the answer names none."""
        answer = self._transport.request(
            "POST",
            self._settings.auth_url,
            data=_form(self._settings),
            auth=_client_auth(self._settings),
            headers={"Accept": "application/json"},
        )
        if answer.status != 200:
            raise _refusal(answer, self._settings)
        content = _json_object(answer)
        token = content.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or token.split() != [token]:
            raise ProtocolBroken(
                f"The token endpoint {_where(self._settings)} answered {answer} without an access_token that can be"
                " used. Check AUTH_URL."
            )
        try:
            lifetime = float(content["expires_in"])
        except (KeyError, TypeError, ValueError, OverflowError):
            lifetime = float("inf")
        return token, lifetime if lifetime > 0 else float("inf")


def _form(settings: Settings) -> dict[str, str]:
    fields = {
        "grant_type": settings.auth_grant_type,
        "scope": settings.auth_scope,
    }
    if settings.auth_grant_type == "password":
        fields |= {"username": settings.auth_username, "password": settings.auth_password}
    if settings.auth_client_auth == "post":
        fields |= {"client_id": settings.auth_client_id, "client_secret": settings.auth_client_secret}
    return {name: value for name, value in fields.items() if value is not None}


def _client_auth(settings: Settings) -> HTTPBasicAuth | None:
    if settings.auth_client_auth == "post":
        return None
    # RFC 6749, 2.3.1: both are form-encoded first, which also makes them ASCII.
    return HTTPBasicAuth(quote_plus(settings.auth_client_id), quote_plus(settings.auth_client_secret))


def _refusal(answer: Answer, settings: Settings) -> Exception:
    """What an answer other than 200 means."""
    where = _where(settings)
    if answer.status == 429 or answer.status >= 500:
        return Transient(f"the token endpoint {where} answered {answer}", answer.retry_after)
    if answer.status in (400, 401, 403):
        return Refused(
            f"The token endpoint {where} refused the credentials: {answer.status}{_stated(answer, settings)}. Check"
            " AUTH_CLIENT_ID, AUTH_CLIENT_SECRET, AUTH_USERNAME, AUTH_PASSWORD and the realm in AUTH_URL."
        )
    if answer.status in (404, 405) or 300 <= answer.status < 400:
        return Misconfigured(f"There is no token endpoint at {where}: it answered {answer}. Check AUTH_URL.")
    return ProtocolBroken(f"The token endpoint {where} answered {answer}. Check AUTH_URL and the AUTH_ settings.")


def _stated(answer: Answer, settings: Settings) -> str:
    """The reason that an OAuth error states, unless it repeats a secret, however escaped: that keeps its words."""
    content = _json_object(answer)
    stated = " ".join(content[key] for key in ("error", "error_description") if isinstance(content.get(key), str))
    basic = f"{quote_plus(settings.auth_client_id)}:{quote_plus(settings.auth_client_secret)}"
    secrets = (settings.auth_client_secret, settings.auth_password or "", b64encode(basic.encode()).decode())
    for secret in secrets:
        if secret and all(word in stated for word in re.findall("[A-Za-z0-9]+", secret)):
            return ", for a reason that may repeat a secret"
    return f", {stated[:400]}" if stated else ""


def _json_object(answer: Answer) -> dict[str, Any]:
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _where(settings: Settings) -> str:
    """The token endpoint without its query."""
    return settings.auth_url.partition("?")[0]
