"""Connections that know whether a request was sent, read a response until one deadline, and can be interrupted.

requests and urllib3 report how a request failed, but not whether the server can have seen it: a reset may come in the
TLS handshake or after the request. What counts is whether a byte of the request had gone out, so the connection itself
takes note of that, in the `Exchange` of the request under way:

    connect ─ (CONNECT through a proxy) ─ TLS ─┊─ first byte of the request ─ … ─ response ─ last byte
    ◄────────────── not sent ─────────────────►┊◄───────────────────── sent ────────────────────────►
                 nothing was expired           ┊   without a complete response, exams may be expired
"""

import http.client
import io
import logging
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from app.logs import log_event
from app.signals import SECOND, Stop

# Bytes, both as received and as unpacked. Parsing takes up to ten times as much memory, and the Kubernetes manifest
# allows 256 MiB. Some 80,000 exams: Proctor sends 100 in a response unless its expireExamLimit was raised.
LONGEST_RESPONSE = 16 * 1024 * 1024
CHUNK = 64 * 1024  # bytes; a response has some 20 KB, and each further read takes time

_NOTICE_EVERY = 30.0  # seconds
_ALERT_WITHIN = 1.0  # seconds

# Firewalls drop connections that are silent for minutes, as a long call is.
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


class BrokenResponse(Exception):
    """A response that is not complete HTTP. The text is this program's own: nothing that a server sent is in it."""


class Exchange:
    """One request and its response, as the connection sees them."""

    def __init__(self, read_timeout: float = 0, ended_by: int = SECOND) -> None:
        """The timeout is in seconds, from the request to the end of the response; `ended_by` is the signal."""
        self.read_timeout = read_timeout
        self.ended_by = ended_by
        self.sent_at: float | None = None
        self.socket: Any = None

    @property
    def sent(self) -> bool:
        """Whether a byte of the request has gone out."""
        return self.sent_at is not None


class Adapter(HTTPAdapter):
    """requests' way to urllib3, with connections that keep `exchange` up to date."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.exchange = Exchange()
        self._pools = _pool_classes(self)
        self._connections: dict[str, Any] = {}  # by URL
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, socket_options=_KEEP_ALIVE, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, socket_options=_KEEP_ALIVE, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *others: Any, **options: Any) -> Any:
        """The same for all requests to a URL until `close`: finding it anew takes half as long as sending a request."""
        url = str(request.url)
        if url not in self._connections:
            self._connections[url] = super().get_connection_with_tls_context(request, *others, **options)
        return self._connections[url]

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Without cookies and history, which take time and are not used."""
        response = requests.Response()
        response.status_code, response.headers, response.raw, response.request = resp.status, resp.headers, resp, req
        return response

    def close(self) -> None:
        self._connections.clear()
        super().close()


def _pool_classes(adapter: Adapter) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's connection classes, made to report to `adapter.exchange`."""

    class Observed(HTTPConnection):
        def connect(self) -> None:
            try:
                with adapter.stop.interruptible(adapter.exchange.ended_by):
                    super().connect()
            finally:
                adapter.exchange.sent_at = None  # a CONNECT to a proxy went through `send`, too

        def send(self, data: Any) -> None:
            if self.sock is None:
                self.connect()
            if not adapter.exchange.sent:
                adapter.exchange.sent_at = time.monotonic()
                adapter.exchange.socket = self.sock
            try:
                super().send(data)
            except ssl.SSLError:
                _raise_alert(self.sock)
                raise

        def response_class(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
            return _Response(_ResponseReader(sock, adapter), **options)

    class ObservedTLS(Observed, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Observed

    class PoolTLS(HTTPSConnectionPool):
        ConnectionCls = ObservedTLS

    return {"http": Pool, "https": PoolTLS}


def _raise_alert(sock: Any) -> None:
    """Raise the alert with which the other side ended TLS: where it did so, a write fails without its reason."""
    sock.settimeout(_ALERT_WITHIN)
    with suppress(TimeoutError, ssl.SSLEOFError, ConnectionError):
        sock.recv(1)


class _Response(http.client.HTTPResponse):
    """A response whose header is complete, and which is the final one."""

    def __init__(self, reader: "_ResponseReader", **options: Any) -> None:
        super().__init__(reader, **options)  # type: ignore[arg-type]  # it wants no more of a socket than `makefile`
        self._reader = reader

    def begin(self) -> None:
        super().begin()
        if self._reader.ended:  # http.client takes the end of the connection for the end of the header
            raise BrokenResponse("the header of the response was cut short")

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips interim responses with 100 alone; haproxy, Apache and Caddy pass 103 on. It has no public
        # method for that, and the final response must not be missed.
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _ResponseReader(io.RawIOBase):
    """The response on a socket. One deadline holds for all of it, even if the server sends a byte now and then.

    What was received is read before the time is looked at: after a freeze of this machine (a paused container, a
    suspended host) a complete response may be waiting.
    """

    def __init__(self, sock: socket.socket, adapter: Adapter) -> None:
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._sock.settimeout(0)
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open until the response has been read
        self._stop = adapter.stop
        self._exchange = adapter.exchange
        self._started = time.monotonic()
        self._received = 0
        self.ended = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, CHUNK)

    def readable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing to do, also when closed: Python 3.13 asks an abandoned response to flush as it is collected."""

    def readinto(self, buffer: Any) -> int:
        while (count := self._receive(buffer)) is None:
            self._wait()
        self.ended = not count
        self._received += count
        if self._received > LONGEST_RESPONSE:
            raise too_long()
        return count

    def _receive(self, buffer: Any) -> int | None:
        """Read what is there; None if nothing is."""
        try:
            return self._sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _wait(self) -> None:
        limit, waited = self._exchange.read_timeout, time.monotonic() - self._started
        if waited >= limit:
            raise BrokenResponse(f"no complete response within {limit:g} seconds")
        seconds = min(limit - waited, _NOTICE_EVERY)
        if not self._stop.wait_readable(self._sock, seconds, self._exchange.ended_by) and seconds == _NOTICE_EVERY:
            so_far = round(waited + seconds)
            log_event(logging.INFO, "waiting", f"Still waiting for a response, {so_far} s so far.", seconds=so_far)

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError):
                self._sock.settimeout(self._timeout)  # after the response to a CONNECT, TLS begins on it
        self._file.close()
        super().close()


def too_long() -> BrokenResponse:
    """The error for a response that is longer than the memory allows."""
    return BrokenResponse(f"the response is longer than {LONGEST_RESPONSE // 1024 // 1024} MiB")
