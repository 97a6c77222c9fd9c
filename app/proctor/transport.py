"""One HTTP request and what became of it: a response, certainly not sent, or sent without a complete response.

Which of the last two it was decides whether exams may have been expired unseen; see `connection` for how that is known.
"""

import ssl
import time
from functools import cache
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies
from urllib3.util.wait import wait_for_read

from app import __version__
from app.exceptions import Transient
from app.proctor import diagnosis
from app.proctor.connection import CHUNK, LONGEST_RESPONSE, Adapter, Exchange, too_long
from app.proctor.response import Response
from app.settings import Settings
from app.signals import SECOND, Stop

# A connection that has been idle may be closed by the server under the next request, and a harmless reset would count
# as a lost response. Beside a call that took longer than `_REUSE_AFTER` a new connection costs nothing.
_REUSE_AFTER = 0.25  # seconds, the longest call
_REUSE_WITHIN = 1.0  # seconds, the longest pause
_CLOSES_WITHIN = 0.01  # seconds; servers that close a connection without saying so do it right after the response

_HEADERS = {
    "Accept-Encoding": "gzip, deflate",  # 3 KB instead of 20 fit in one buffer of a gateway, and are not cut in between
    "Connection": "keep-alive",
    "User-Agent": f"force-submit-proctor/{__version__}",
}


class IncompleteResponse(Transient):
    """The request was sent, and no complete response was received."""


class _Last(NamedTuple):
    """The last response: from where, on which socket, when it ended (monotonic), after how many seconds."""

    server: str
    socket: Any
    ended: float
    seconds: float


class Transport:
    """Sends requests one after the other, over one connection as long as that is safe.

    It uses requests without a Session, which would follow redirects (and turn a POST into a GET), keep cookies, and
    take credentials from ~/.netrc over the token.
    """

    def __init__(self, stop: Stop, connect_timeout: float, read_timeout: float, verify: bool | str) -> None:
        """Timeouts are in seconds, that for reading is for a complete response; `verify` is as in requests."""
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._verify = verify
        self._adapter = Adapter(stop)
        self._proxies_for = cache(get_environ_proxies)
        self._last: _Last | None = None
        self._keeps_connections: dict[str, bool] = {}  # by host and port

    @classmethod
    def from_settings(cls, settings: Settings, stop: Stop) -> Self:
        """The transport that the settings ask for."""
        return cls(
            stop, settings.connect_timeout, settings.read_timeout, tls_verify(settings.tls_verify, settings.tls_ca_file)
        )

    @property
    def sent(self) -> bool:
        """Whether a byte of the last request went out."""
        return self._adapter.exchange.sent

    def close(self) -> None:
        """Close the connection; another request opens a new one."""
        self._adapter.close()

    def prepare(self, method: str, url: str, **arguments: Any) -> requests.PreparedRequest:
        """A request as `requests.Request` takes it, which can be sent more than once.

        Raises:
            Misconfigured: the URL cannot be used.
        """
        try:
            request = requests.Request(method, url, **arguments).prepare()
        except ValueError as error:
            raise diagnosis.of_unsent(error, url) or error from error
        for name, value in _HEADERS.items():
            request.headers.setdefault(name, value)
        return request

    def send(
        self, request: requests.PreparedRequest, secrets: tuple[str, ...] = (), ended_by: int = SECOND
    ) -> Response:
        """Send a request and read its complete response, for at most the read timeout. Redirects are not followed.

        `secrets` are what the request holds and no log may; the signal `ended_by` ends the wait.

        Raises:
            Transient: the server cannot be reached; it did not see the request.
            IncompleteResponse: the request was sent, no complete response was received.
            Misconfigured: the URL, a proxy or TLS is set up wrongly; the server did not process the request.
            Interrupted: a signal ended the wait for a connection or a response; `sent` says which.
        """
        url = str(request.url)
        server = urlsplit(url).netloc
        if not self._may_reuse(server):
            self._adapter.close()
        exchange = self._adapter.exchange = Exchange(self._read_timeout, ended_by)
        began = time.monotonic()
        try:
            with self._adapter.send(
                request,
                timeout=(self._connect_timeout, self._read_timeout),
                verify=self._verify,
                proxies=self._proxies_for(url),
                stream=True,
            ) as received:
                body = _body(received)
        except Exception as error:
            self._adapter.close()
            self._last, self._keeps_connections[server] = None, False
            if not exchange.sent:
                raise diagnosis.of_unsent(error, url) or error from error
            raise diagnosis.of_sent(error, url) or IncompleteResponse(diagnosis.reason_of(error)) from error
        ended = time.monotonic()
        response = Response(received.status_code, received.headers, body, ended - (exchange.sent_at or began), secrets)
        self._last = _Last(server, exchange.socket, ended, ended - began)
        if failure := diagnosis.of_response(response, url):
            raise failure
        return response

    def _may_reuse(self, server: str) -> bool:
        """Whether an open connection to a server can be trusted with another request."""
        last, now = self._last, time.monotonic()
        if not last or last.seconds >= _REUSE_AFTER or now >= last.ended + _REUSE_WITHIN:
            return False
        if server == last.server and server not in self._keeps_connections:
            try:
                seconds = max(last.ended + _CLOSES_WITHIN - now, 0)
                self._keeps_connections[server] = not wait_for_read(last.socket, seconds)
            except (OSError, ValueError):  # it said that it would close, and is closed
                return False
        return self._keeps_connections.get(server, False)


def _body(received: requests.Response) -> bytes:
    body = bytearray()
    try:
        for chunk in received.iter_content(CHUNK):
            body += chunk
            if len(body) > LONGEST_RESPONSE:
                raise too_long()
    except requests.RequestException:
        # tinyproxy resets the connection after its page: of a refusal to let the request in, the status says enough.
        if received.status_code not in (401, 403, 407):
            raise
    return bytes(body)


def tls_verify(verify: bool, ca_file: str | None) -> bool | str:
    """What to check certificates with, by TLS_VERIFY and TLS_CA_FILE.

    Nothing, a file of CA certificates, or (True) those that come with requests.
    """
    if not verify:
        urllib3.disable_warnings()
        return False
    return ca_file or ssl.get_default_verify_paths().cafile or True
