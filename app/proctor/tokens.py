"""The access token: get one, keep it, renew it shortly before it expires.

OAuth 2.0 (RFC 6749): the grants `password` (4.3) and `client_credentials` (4.4), client authentication in the form or
by HTTP Basic (2.3.1), errors (5.2).
"""

import json
import logging
import re
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from requests.auth import HTTPBasicAuth

from app.exceptions import CredentialsRejected, Failure, Misconfigured, Transient, Unavailable, UnexpectedResponse
from app.logs import log_event
from app.proctor.response import Response
from app.proctor.retries import retrying
from app.proctor.transport import Transport
from app.settings import Settings
from app.signals import FIRST

# A token is renewed when this much of its life is left: half a minute, or a tenth of a short life.
_MARGIN_SECONDS = 30.0
_MARGIN_PART = 0.1

# What OpenAM and Keycloak mean by an error, and which settings it is about.
_ADVICE = {
    "invalid_client": "Check AUTH_CLIENT_ID and AUTH_CLIENT_SECRET.",
    "invalid_grant": "Check AUTH_USERNAME and AUTH_PASSWORD, and that the account is not locked or inactive.",
    "invalid_scope": "Check AUTH_SCOPE.",
    "unauthorized_client": (
        "Check AUTH_CLIENT_ID and AUTH_CLIENT_SECRET, and that this client may use AUTH_GRANT_TYPE."  # Keycloak: either
    ),
    "unsupported_grant_type": "Check AUTH_GRANT_TYPE.",
}
_ANY_CREDENTIAL = "Check AUTH_CLIENT_ID, AUTH_CLIENT_SECRET, AUTH_USERNAME, AUTH_PASSWORD and the realm in AUTH_URL."
_OPENAM_WANTS_POST = " OpenAM does not decode what AUTH_CLIENT_AUTH=basic encodes: with OpenAM, use post."
_TRANSIENT_ERRORS = {"server_error", "temporarily_unavailable"}  # OpenAM sends them with 400


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
        self._issued_before = False

    def get(self) -> str:
        """A token that is not about to expire; requests one where there is none.

        Raises:
            CredentialsRejected: the credentials are not accepted.
            Misconfigured: AUTH_URL or another AUTH_ setting is wrong.
            UnexpectedResponse: the response holds no token.
            Unavailable: the token endpoint cannot be used, after all attempts.
            Interrupted: a signal was received.
        """
        if self._token is None or time.monotonic() >= self._renew_at:
            request = retrying(self._settings, lambda: "Could not get a token", self._sleep, self._on_retry)
            try:
                self._token, lifetime = request(self._request)
            except Transient as reason:
                raise Unavailable(
                    f"Could not get a token: {reason}. Attempts: {self._settings.max_attempts}. Check that"
                    f" {_where(self._settings)} is up and reachable from this host."
                ) from None
            self._issued_before = True
            self._renew_at = time.monotonic() + lifetime - min(_MARGIN_SECONDS, lifetime * _MARGIN_PART)
            log_event(
                logging.DEBUG,
                "token",
                f"Got a token, valid for {lifetime:g} s.",
                lifetime_seconds=lifetime if lifetime < float("inf") else None,
            )
        return self._token

    def discard(self) -> None:
        """Forget a token that was rejected; the next `get` requests a new one."""
        self._token = None

    def _request(self) -> tuple[str, float]:
        """One token request: the token and its lifetime in seconds, endless where the response names none."""
        settings = self._settings
        request = self._transport.prepare(
            "POST",
            settings.auth_url,
            data=_form(settings),
            auth=_client_auth(settings),
            headers={"Accept": "application/json"},
        )
        response = self._transport.send(request, _secrets(settings), ended_by=FIRST)
        if response.status != 200:
            failure = _failure(response, settings)
            if self._issued_before and isinstance(failure, CredentialsRejected):
                # The same credentials were accepted in this run: the user directory is down, or OpenAM shuts down.
                raise Transient(f"{failure} They were accepted earlier in this run")
            raise failure
        content = _json_object(response)
        token = content.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or token.split() != [token]:
            raise UnexpectedResponse(
                f"The token endpoint {_where(settings)} responded {response} without a usable access_token. Check"
                " AUTH_URL."
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
    # RFC 6749, 2.3.1: both are encoded first, which also makes them ASCII. A space is %20, which every decoder takes.
    return HTTPBasicAuth(quote(settings.auth_client_id, safe=""), quote(settings.auth_client_secret, safe=""))


def _secrets(settings: Settings) -> tuple[str, ...]:
    basic = f"{quote(settings.auth_client_id, safe='')}:{quote(settings.auth_client_secret, safe='')}"
    secrets = (settings.auth_client_secret, settings.auth_password, b64encode(basic.encode()).decode())
    return tuple(secret for secret in secrets if secret)


def _failure(response: Response, settings: Settings) -> Failure | Transient:
    """What a response other than 200 means."""
    where = _where(settings)
    error, stated = _stated(response)
    if error in _TRANSIENT_ERRORS or response.status == 429 or response.status >= 500:
        return Transient(f"the token endpoint {where} responded {response}{stated}", response.retry_after)
    if 300 <= response.status < 400:
        target = response.quote(response.header("Location").partition("?")[0])
        return Misconfigured(
            f"The token endpoint {where} redirects to {target or 'elsewhere'}. Set AUTH_URL to the address that issues"
            " tokens."
        )
    if response.status in (404, 405):
        return Misconfigured(
            f"There is no token endpoint at {where}: it responded {response}{stated}. Check AUTH_URL, and the realm in"
            " AUTH_URL."
        )
    if response.status in (400, 401, 403):
        advice = _ADVICE.get(error, _ANY_CREDENTIAL)
        if error == "invalid_client" and settings.auth_client_auth == "basic":
            advice += _OPENAM_WANTS_POST
        if not error and response.header("WWW-Authenticate").lower().startswith("basic"):
            return CredentialsRejected(
                f"{where} responded {response} and asks for a Basic login: that is the response of a proxy or gateway,"
                " not of the token endpoint. Check HTTPS_PROXY and HTTP_PROXY, and the gateways in between."
            )
        if not error:
            stated = f" ({response})"
        return CredentialsRejected(
            f"The token endpoint {where} rejected the credentials: {response.status}{stated}. {advice}"
        )
    return UnexpectedResponse(
        f"The token endpoint {where} responded {response}{stated}. Check AUTH_URL and the AUTH_ settings."
    )


def _stated(response: Response) -> tuple[str, str]:
    """The code of an OAuth error, and the reason that the response states, unless that may repeat a secret."""
    content = _json_object(response)
    code = content.get("error")
    error = code if isinstance(code, str) and re.fullmatch("[a-z_]{1,40}", code) else ""
    description = content.get("error_description") or content.get("message") or (None if error else code)
    reason = response.quote(description).strip().rstrip(".") if isinstance(description, str) else ""
    if description and not reason:
        reason = "its description may repeat a secret and is not shown"
    return error, "".join(f", {part}" for part in (error, reason) if part)


def _json_object(response: Response) -> dict[str, Any]:
    try:
        content = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _where(settings: Settings) -> str:
    """The token endpoint without its query."""
    return settings.auth_url.partition("?")[0]
