"""Servers on loopback for what no embedded Proctor does: they send any bytes, and keep the requests they received."""

import http.client
import io
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

_MORE = getattr(socket, "MSG_MORE", 0)  # Linux: wait for what follows
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
"""A proxy's response to CONNECT."""


class Request(NamedTuple):
    """A request as it was received."""

    method: str
    path: str
    headers: http.client.HTTPMessage
    body: bytes
    raw: bytes

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form that was posted."""
        return dict(parse_qsl(self.body.decode("ascii"), keep_blank_values=True))


class Connection:
    """The server's side of a connection."""

    def __init__(self, sock: socket.socket, requests: list[Request]) -> None:
        self.socket = sock
        self.relayed = False
        """Whether its bytes go on unread, so that no request in them is kept."""
        self._file = sock.makefile("rb")
        self._requests = requests

    def receive(self) -> Request | None:
        """The next request, which is also kept; None once the client has closed the connection."""
        lines = [self._file.readline()]
        while lines[-1].strip():
            lines.append(self._file.readline())
        if len(lines) == 1:
            return None
        headers = http.client.parse_headers(io.BytesIO(b"".join(lines[1:])))
        body = self._file.read(int(headers.get("Content-Length") or 0))
        method, path, _ = lines[0].decode("latin-1").split()
        request = Request(method, path, headers, body, b"".join(lines) + body)
        self._requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_last(self, data: bytes) -> None:
        """Send, so that the end of the connection follows at once: a busy machine may be slow to close it."""
        self.socket.sendall(data, 0 if isinstance(self.socket, ssl.SSLSocket) else _MORE)

    def wait_closed(self) -> None:
        """Wait until the client has gone."""
        while self.socket.recv(65536):
            pass

    def reset(self) -> None:
        """End the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection, without having said so."""
        self._file.close()
        self.socket.close()


class Server:
    """What a running server has received."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._requests: list[Request] = []
        self.connections: list[Connection] = []

    @property
    def requests(self) -> list[Request]:
        """The requests, which a server that relays its connections does not know."""
        if any(connection.relayed for connection in self.connections):
            raise RuntimeError("a server that relays its connections does not read the requests")
        return self._requests


ServeConnection = Callable[[Connection], None]
"""What a server does with a connection, which is closed afterwards."""


@contextmanager
def serving(serve: ServeConnection, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server that treats each connection in a thread of its own."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client may go away
                connection = Connection(_secured(self.request, tls), running._requests)
                running.connections.append(connection)
                try:
                    serve(connection)
                finally:
                    connection.close()

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        running = Server(server.server_address[1])
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        server.shutdown()


def _secured(sock: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
    if not tls:
        return sock
    spare = sock.dup()
    try:
        return tls.wrap_socket(sock, server_side=True)
    except ssl.SSLError:
        # An alert was sent. Closing at once would be a reset, as there is more to read, and could overtake it.
        spare.shutdown(socket.SHUT_WR)
        while spare.recv(65536):
            pass
        raise
    finally:
        spare.close()


def responding(respond: bytes | Callable[[Request], bytes], *, keep: bool = False) -> ServeConnection:
    """Respond to each request; without `keep`, close the connection after the first, without having said so."""

    def serve(connection: Connection) -> None:
        while request := connection.receive():
            data = respond if isinstance(respond, bytes) else respond(request)
            if not keep:
                return connection.send_last(data)
            connection.send(data)

    return serve


def in_turn(*responses: bytes) -> Callable[[Request], bytes]:
    """One response after the other; the last one again and again."""
    left = list(responses)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def resetting(connection: Connection) -> None:
    """Reset a connection as soon as something was received."""
    connection.socket.recv(1)
    connection.reset()


def silent(connection: Connection) -> None:
    """Receive, and never respond."""
    connection.wait_closed()


def relaying(port: int, welcome: bytes = b"") -> ServeConnection:
    """Hand a connection on to another port; as a proxy does, after the response to a CONNECT."""

    def serve(connection: Connection) -> None:
        connection.relayed = True
        if welcome:
            while not connection.socket.recv(65536).endswith(b"\r\n\r\n"):
                pass
            connection.send(welcome)
        with socket.create_connection(("127.0.0.1", port)) as onward:
            back = Thread(target=_pump, args=(onward, connection.socket))
            back.start()
            _pump(connection.socket, onward)
            back.join()

    return serve


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # either side may go away
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def response(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A complete response; an underscore in a header's name stands for a hyphen."""
    reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
    fields = {name.replace("_", "-"): text for name, text in headers.items()} | {"Content-Length": str(len(body))}
    head = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
    return f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1") + body


def json_response(content: Any, status: int = 200, **headers: str) -> bytes:
    """A complete response with JSON."""
    return response(
        status, json.dumps(content, ensure_ascii=False).encode(), Content_Type="application/json", **headers
    )
