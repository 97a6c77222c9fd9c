"""Faults of the connection: reset, cut, silent, closed, or with an interim response."""

import http.client
import json
import re
import zlib
from contextlib import closing

import pytest

from tests.embedded import EmbeddedProctor
from tests.simulator.client import EXPIRE, bearer, connect, expire, outcome
from tests.support import PATIENCE, Simulate


@pytest.mark.parametrize(("fault", "changed"), [("reset-before", 0), ("reset-after", 2)])
def test_a_connection_may_be_reset(simulate: Simulate, fault: str, changed: int) -> None:
    simulator = simulate(exams=2, faults=[fault])
    with pytest.raises(ConnectionResetError):
        expire(simulator)
    assert outcome(simulator) == (changed, False)


def received(simulator: EmbeddedProctor) -> bytes:
    """All that the server sends in response to one call, until it ends the connection."""
    with closing(connect(simulator)) as connection:
        connection.request("POST", EXPIRE + "SBAC_PT", b'""', {"Connection": "close", **bearer(simulator)})
        with connection.sock.makefile("rb") as stream:
            return stream.read()


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("cut-status", rb"HTTP/1.1 200"),
        ("cut-lines", rb"HttpOnly\r\n"),
        ("cut-head", rb"\r\n[\w-]+: [^\r\n]+"),
        ("cut-blank", rb"\r\nServer:  \r\n"),
        ("cut-body", rb"\r\n\r\n[0-9a-f]+\r\n\{.+"),
        ("cut-chunk", rb"\}\r\n"),
        ("cut-length", rb"\r\nContent-Length: \d+\r\n\r\n\{.+"),
    ],
)
def test_a_response_may_be_cut_anywhere(simulate: Simulate, fault: str, end: bytes) -> None:
    simulator = simulate(exams=2, faults=[fault])
    sent = received(simulator)
    assert sent.startswith(b"HTTP/1.1 200")
    assert re.search(b"(?s)" + end + rb"\Z", sent)
    assert outcome(simulator) == (2, False)


@pytest.mark.parametrize("fault", ["cut-body", "cut-chunk", "cut-length"])
def test_a_cut_body_is_incomplete_to_a_client(simulate: Simulate, fault: str) -> None:
    with pytest.raises(http.client.IncompleteRead):
        expire(simulate(exams=20, faults=[fault]))


def test_a_gzip_stream_may_end_too_early(simulate: Simulate) -> None:
    simulator = simulate(exams=20, faults=["cut-gzip"])
    response = expire(simulator)
    assert response.headers["Content-Encoding"] == "gzip"
    inflate = zlib.decompressobj(wbits=47)
    assert inflate.decompress(response.body).startswith(b"{")
    assert not inflate.eof
    assert outcome(simulator) == (20, True)


@pytest.mark.parametrize(("fault", "changed"), [("silence-before", 0), ("silence-after", 2)])
def test_a_response_may_never_be_sent(simulate: Simulate, fault: str, changed: int) -> None:
    simulator = simulate(exams=2, faults=[fault])
    with closing(connect(simulator)) as connection:
        connection.request("POST", EXPIRE + "SBAC_PT", b'""', bearer(simulator))
        assert simulator.ended.empty()
    assert outcome(simulator) == (changed, False)


def test_a_response_may_never_end(simulate: Simulate) -> None:
    simulator = simulate(exams=2, faults=["drip"])
    with closing(connect(simulator)) as connection:
        connection.request("POST", EXPIRE + "SBAC_PT", b'""', bearer(simulator))
        with closing(connection.getresponse()) as response:
            assert (response.status, response.read(3)) == (200, b"   ")
            assert simulator.ended.empty()
    assert outcome(simulator) == (2, False)


def test_a_response_may_be_held_until_it_is_released(simulate: Simulate) -> None:
    simulator = simulate(exams=2, faults=["hold"])
    with closing(connect(simulator)) as connection:
        connection.request("POST", EXPIRE + "SBAC_PT", b'""', bearer(simulator))
        assert simulator.held.wait(PATIENCE)
        assert simulator.ended.empty()
        simulator.release.set()
        assert len(json.load(connection.getresponse())["expiredExams"]) == 2
    assert outcome(simulator) == (2, True)


@pytest.mark.parametrize(("fault", "closed"), [("ok", False), ("close", True)])
def test_a_good_response_may_be_followed_by_an_unannounced_end_of_the_connection(
    simulate: Simulate, fault: str, closed: bool
) -> None:
    simulator = simulate(exams=3, limit=1, faults=[fault])
    token = bearer(simulator)
    with closing(connect(simulator)) as connection:
        connection.request("POST", EXPIRE + "SBAC_PT", b'""', token)
        response = connection.getresponse()
        assert response.headers["Connection"] is None
        assert len(json.load(response)["expiredExams"]) == 1
        assert outcome(simulator) == (1, True)
        if closed:
            assert connection.sock.recv(1) == b""
        else:
            connection.request("POST", EXPIRE + "SBAC_PT", b'""', token)
            assert connection.getresponse().status == 200


def test_an_interim_response_may_come_first(simulate: Simulate) -> None:
    simulator = simulate(exams=2, faults=["early-hints"])
    interim, _, rest = received(simulator).partition(b"\r\n\r\n")
    assert interim.startswith(b"HTTP/1.1 103 ")
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.count(b"examId") == 2
    assert outcome(simulator) == (2, True)
