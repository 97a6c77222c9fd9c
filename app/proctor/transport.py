"""One HTTP request and what became of it: an answer, certainly not sent, or sent without a whole answer.

Which of the last two it was decides whether exams may have been expired unseen. The type of an exception does not tell
(a reset can come in the TLS handshake or after the request), so the connection itself notes when the first byte of a
request goes out.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple, Self

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from app.exceptions import Misconfigured
from app.settings import Settings
from app.signals import Stop

# A connection that has been idle may be closed by the server under the next request, and a harmless reset would count
# as a lost answer. Servers keep one open for seconds; one that does not is believed after the first failure.
_REUSE_WITHIN = 1.0
_LONGEST_ANSWER = 64 * 1024 * 1024  # bytes, both as they come and as they are unpacked
_PIECE = 64 * 1024  # bytes; an answer has some 20 KB, and each further read takes time
_TOO_LONG = "the answer is longer than 64 MB"
_NOTICE_EVERY = 30.0

# Firewalls drop connections that are silent for minutes, as a long call is.
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


class Transient(Exception):
    """Worth another attempt. `wait` is how many seconds to leave before it, at least."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class NotSent(Transient):
    """The server did not see the request."""


class NoAnswer(Transient):
    """The request went out, and no whole answer came back."""


class Answer(NamedTuple):
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        kind = self.headers.get("Content-Type", "no content type").partition(";")[0]
        return f"{self.status} {http.client.responses.get(self.status, '')} ({kind}, {len(self.body)} bytes)"

    @property
    def retry_after(self) -> float:
        """The seconds that a Retry-After header asks for, in either of its forms; 0 without one."""
        value = self.headers.get("Retry-After", "")
        try:
            if value.isdecimal():
                return float(value)
            return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0)
        except (ValueError, TypeError, OverflowError):
            return 0


class Transport:
    """Sends requests one after the other, over one connection as long as that is safe."""

    def __init__(
        self,
        stop: Stop,
        connect_timeout: float,
        read_timeout: float,
        verify: bool | str = True,
        on_waiting: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Timeouts are in seconds, that for reading is for a whole answer; `verify` is as in requests.

        `on_waiting` is called with the seconds so far, every half minute of a wait for an answer.
        """
        self._timeouts = (connect_timeout, read_timeout)
        self._adapter = _Adapter(stop, read_timeout, on_waiting)
        self._proxies_for = cache(get_environ_proxies)
        self._session = requests.Session()
        self._session.trust_env = False  # or the credentials of a ~/.netrc would replace the token
        self._session.verify = verify
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        self._last_used = 0.0
        self._reuse = True

    @classmethod
    def of(cls, settings: Settings, stop: Stop, on_waiting: Callable[[float], None]) -> Self:
        """The transport that the settings ask for."""
        return cls(stop, settings.connect_timeout, settings.read_timeout, verify_of(settings), on_waiting)

    def close(self) -> None:
        """Close the connection; another request opens a new one."""
        self._session.close()

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Send one request and read its whole answer, for at most the read timeout. Redirects are not followed.

        Raises:
            NotSent: the server did not see the request.
            NoAnswer: the request went out, no whole answer came back.
            Misconfigured: the TLS certificate is not trusted, or the URL or a proxy's cannot be used.
            Interrupted: a signal ended the wait for a connection or an answer.
        """
        if not self._reuse or time.monotonic() - self._last_used > _REUSE_WITHIN:
            self._session.close()
        self._adapter.sent = False
        try:
            with self._session.request(
                method,
                url,
                timeout=self._timeouts,
                proxies=self._proxies_for(url),
                allow_redirects=False,  # a redirected POST would become a GET
                stream=True,
                **arguments,
            ) as response:
                if response.status_code < 200:  # the answer that counts is still to come
                    raise http.client.HTTPException(f"an interim answer, {response.status_code}")
                body = bytearray()
                for piece in response.iter_content(_PIECE):
                    body += piece
                    if len(body) > _LONGEST_ANSWER:
                        raise OverflowError(_TOO_LONG)
                self._last_used = time.monotonic()
                return Answer(response.status_code, response.headers, bytes(body))
        except Exception as error:
            self._session.close()
            self._reuse = False
            if self._adapter.sent:
                raise NoAnswer(_reason(error)) from error
            if failure := _unsent(error, url):
                raise failure from error
            raise


def verify_of(settings: Settings) -> bool | str:
    """What to check certificates with: nothing, a file of CA certificates, or (True) those that come with requests."""
    if not settings.tls_verify:
        urllib3.disable_warnings()
        return False
    return settings.tls_ca_file or ssl.get_default_verify_paths().cafile or True


def _unsent(error: Exception, url: str) -> Exception | None:
    """What an error means before anything was sent; None for one that is a bug."""
    host = url.partition("://")[2].partition("/")[0]
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Misconfigured(
                f"The TLS certificate of {host} is not trusted: {cause.verify_message}. If it was issued by your own"
                " CA, set TLS_CA_FILE to that CA's certificate."
            )
    if isinstance(error, (ValueError, TypeError)):  # from deep within the libraries, for odd hosts and proxies
        problem = type(error).__name__  # its text may hold the password of a proxy
        return Misconfigured(f"{host} cannot be called ({problem}). Check its URL, and HTTP_PROXY and HTTPS_PROXY.")
    if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError, OSError)):
        through = "the proxy for " if isinstance(error, requests.exceptions.ProxyError) else ""
        return NotSent(f"{through}{host} is not reached: {_reason(error)}")
    return None


def _reason(error: Exception) -> str:
    """The root cause in a few words, without the object addresses and URLs that the libraries wrap it in."""
    for cause in reversed(_causes(error)):
        if isinstance(cause, (http.client.IncompleteRead, urllib3.exceptions.IncompleteRead)):
            return "the answer broke off"
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            return "it does not speak TLS; is its URL http, or the port another one?"
        if isinstance(cause, (OSError, http.client.HTTPException, OverflowError)):
            return (isinstance(cause, OSError) and cause.strerror) or str(cause) or type(cause).__name__
    return str(error) or type(error).__name__


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while nested := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(nested)
    return chain


class _Adapter(HTTPAdapter):
    """requests' way to urllib3, with connections that note what they do in `sent`."""

    def __init__(self, stop: Stop, read_timeout: float, on_waiting: Callable[[float], None]) -> None:
        self.sent = False
        self.stop = stop
        self.read_timeout = read_timeout
        self.on_waiting = on_waiting
        self._pools = _pool_classes(self)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, socket_options=_KEEP_ALIVE, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, socket_options=_KEEP_ALIVE, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pool_classes(adapter: _Adapter) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's connection classes, made to tell `adapter` when a request goes out and to bound the whole answer."""

    class Observed(HTTPConnection):
        def connect(self) -> None:
            try:
                with adapter.stop.waiting():
                    super().connect()
            finally:
                adapter.sent = False  # a CONNECT to a proxy went through send, too

        def send(self, data: Any) -> None:
            if self.sock is None:
                self.connect()
            adapter.sent = True
            super().send(data)

        def response_class(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
            return http.client.HTTPResponse(_Patient(sock, adapter), **options)  # type: ignore[arg-type]

    class ObservedTLS(Observed, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Observed

    class PoolTLS(HTTPSConnectionPool):
        ConnectionCls = ObservedTLS

    return {"http": Pool, "https": PoolTLS}


class _Patient(io.RawIOBase):
    """The answer on a socket. One time limit holds for all of it, also for a server that sends a byte now and then."""

    def __init__(self, sock: socket.socket, adapter: _Adapter) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until the answer has been read
        self._started = time.monotonic()
        self._received = 0
        self._stop = adapter.stop
        self._limit = adapter.read_timeout
        self._on_waiting = adapter.on_waiting

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _PIECE)

    def readable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing to do, also when closed: Python 3.13 asks an abandoned answer to flush as it is collected."""

    def readinto(self, buffer: Any) -> int:
        while (left := self._limit - self._waited()) > 0:
            self._sock.settimeout(min(left, _NOTICE_EVERY))
            try:
                with self._stop.waiting():
                    count = self._sock.recv_into(buffer)
                return self._counted(count)
            except TimeoutError:
                if left > _NOTICE_EVERY:
                    self._on_waiting(self._waited())
        raise TimeoutError(f"no whole answer within {self._limit:g} seconds")

    def _counted(self, count: int) -> int:
        self._received += count
        if self._received > _LONGEST_ANSWER:
            raise OverflowError(_TOO_LONG)
        return count

    def _waited(self) -> float:
        return time.monotonic() - self._started

    def close(self) -> None:
        self._raw.close()
        super().close()
