"""The servers of the tests keep the requests they received, or refuse to be asked."""

import socket

import pytest

from tests.servers import relaying, responding, response, serving


def test_a_server_that_relays_its_connections_cannot_be_asked_for_requests() -> None:
    with serving(responding(response(200))) as server, serving(relaying(server.port)) as relay:
        with socket.create_connection(("127.0.0.1", relay.port)) as client:
            client.sendall(b"GET /path HTTP/1.1\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(RuntimeError, match="does not read the requests"):
            _ = relay.requests
        assert [request.path for request in server.requests] == ["/path"]
