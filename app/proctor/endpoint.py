"""One expire call, and how it can end.

Proctor's response is the only report of the exams that it changed, so a call ends in one of three ways: with a `Batch`;
with a `Failure` or a `Transient` after which no exam can have been expired unseen; or with `ResponseLost`, where one
may have been.
"""

import logging

import requests

from app.exceptions import CredentialsRejected, Failure, Misconfigured, Transient, UnexpectedResponse
from app.logs import log_event
from app.model import Batch
from app.proctor.batch import parse_batch
from app.proctor.gateways import was_rejected
from app.proctor.response import Response
from app.proctor.transport import IncompleteResponse, Transport
from app.settings import Settings
from app.signals import FIRST

# A rejection is sent at once. From here on, or from a tenth of READ_TIMEOUT on, it may also be a gateway's response
# to a call that it had passed on: Varnish times out after a minute, haproxy rejects a call after some 3 seconds.
_LATE = 10.0  # seconds
_LATE_PART = 0.1


class ResponseLost(Transient):
    """The call may have expired exams, and there is no response to say which."""


class TokenRejected(Transient):
    """Proctor did not accept the token; nothing was expired."""


class Endpoint:
    """The expire endpoint of one Proctor."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self.url = settings.expire_url
        self._read_timeout = settings.read_timeout
        self._late = min(_LATE, settings.read_timeout * _LATE_PART)
        self._transport = transport
        self._prepared: tuple[str, requests.PreparedRequest] | None = None
        self._worked = False

    @property
    def sent(self) -> bool:
        """Whether Proctor can have seen the last call, also where a signal ended it."""
        return self._transport.sent

    def expire(self, token: str) -> Batch:
        """Have Proctor expire the next overdue exams, up to its limit (100 by default).

        Raises:
            ResponseLost: exams may have been expired whose report was not received.
            TokenRejected: a new token may be accepted; nothing was expired.
            Transient: Proctor could not be reached or rejected the call; nothing was expired.
            Failure: another attempt would end the same way; nothing was expired.
            Interrupted: a second signal ended the call; `sent` says whether exams may have been expired.
        """
        try:
            response = self._transport.send(self._request(token), secrets=(token,))
        except IncompleteResponse as error:
            # Proctor may still be at work on the call: leave it as much time as the settings allow.
            raise ResponseLost(str(error), wait=self._read_timeout) from None
        log_event(logging.DEBUG, "call", "Proctor responded %s after %.3f s.", response, response.seconds)
        if response.status == 200 and (batch := parse_batch(response.body)):
            self._worked = True
            return batch._replace(anomalies=frozenset(map(response.quote, batch.anomalies)) - {""})
        self._verify_token_was_accepted(response)
        late = response.seconds >= self._late
        if was_rejected(response) and not late:
            raise Transient(f"Proctor rejected the call: {response}", response.retry_after)
        # A late response from a URL that worked before is a gateway's, to a call that took too long.
        if not (late and self._worked) and (failure := _failure(response, self.url)):
            raise failure
        what = ", which is not its list of exams" if response.status == 200 else ""
        raise ResponseLost(f"Proctor responded {response}{what}", wait=self._read_timeout)

    def verify(self, token: str) -> None:
        """Verify URL and token without expiring anything: OPTIONS names POST as allowed where the token is good.

        An older Proctor may respond to it, or to GET, with 405 and `Allow: POST`.

        Raises:
            Transient, TokenRejected, Failure: as for `expire`.
        """
        options = self._ask("OPTIONS", token)
        if _allows_post(options) or _allows_post(self._ask("GET", token)):
            return
        if options.status == 429 or options.status >= 500:
            raise Transient(f"Proctor responded {options}", options.retry_after)
        raise _failure(options, self.url) or Misconfigured(
            f"{self.url} is not Proctor's expire endpoint: OPTIONS returned {options}, which does not allow POST. Check"
            " PROCTOR_URL."
        )

    def _request(self, token: str) -> requests.PreparedRequest:
        if self._prepared is None or self._prepared[0] != token:
            headers = {"Content-Type": "application/json", **_headers(token)}
            self._prepared = token, self._transport.prepare("POST", self.url, data=b'""', headers=headers)
        return self._prepared[1]

    def _ask(self, method: str, token: str) -> Response:
        request = self._transport.prepare(method, self.url, headers=_headers(token))
        response = self._transport.send(request, secrets=(token,), ended_by=FIRST)
        self._verify_token_was_accepted(response)
        return response

    def _verify_token_was_accepted(self, response: Response) -> None:
        if _rejects_token(response):
            raise TokenRejected(f"{self.url} rejected the token with {response.status}")


def _headers(token: str) -> dict[str, str]:
    return {"Accept": "application/json", "Authorization": f"Bearer {token}"}


def _allows_post(response: Response) -> bool:
    return response.status in (200, 204, 405) and "POST" in response.header("Allow")


def _rejects_token(response: Response) -> bool:
    """Whether this is Proctor's 401, or its 400 for a token that it has accepted before and that has expired since."""
    challenge = response.header("WWW-Authenticate").lower()
    if response.status == 401:
        return not challenge.startswith("basic")
    return response.status == 400 and (challenge.startswith("bearer") or b"invalid_grant" in response.body)


def _failure(response: Response, url: str) -> Failure | None:
    """The failure behind a response that is sent before any exam is touched; None for every other one."""
    status = response.status
    if status == 200 and b"SAMLRequest" in response.body:
        return _sign_in(url, "responded with a page to sign in")
    if 300 <= status < 400 and (target := response.header("Location").partition("?")[0]):
        shown = response.quote(target) or "elsewhere"
        if target.endswith(url.rpartition("/")[2]):
            return Misconfigured(f"{url} has moved to {shown}. Set PROCTOR_URL to where it is now.")
        return _sign_in(url, f"redirected to {shown}, to sign in")
    if status == 401:
        return CredentialsRejected(
            f"{url} responded {response} and asks for a Basic login: that is a gateway's response, not Proctor's."
            " Have the gateway let this request pass, or use an address of Proctor that bypasses it."
        )
    if status == 403:
        if response.header("WWW-Authenticate").lower().startswith("bearer") or b"access_denied" in response.body:
            return CredentialsRejected(
                f"{url} responded {response}: the token is valid, but was issued for another service. Check"
                " AUTH_CLIENT_ID and the realm in AUTH_URL."
            )
        return CredentialsRejected(
            f"{url} responded {response}: that is a gateway's response, not Proctor's. Have the gateway let this"
            " request pass."
        )
    if status in (404, 405):
        return Misconfigured(f"There is no expire endpoint at {url}: it responded {response}. Check PROCTOR_URL.")
    if 300 <= status < 500 and status not in (408, 429):  # gateways say so, too, when a response takes too long
        return UnexpectedResponse(
            f"{url} responded {response}, which Proctor never does. Check PROCTOR_URL, CLIENT_NAME, and the proxies and"
            " gateways in between."
        )
    return None


def _sign_in(url: str, what: str) -> CredentialsRejected:
    return CredentialsRejected(
        f"Proctor did not see a token: {url} {what}. Check that PROCTOR_URL and AUTH_URL belong together, and that no"
        " proxy or gateway removes the Authorization header."
    )
