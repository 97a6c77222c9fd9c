"""Proctor's HTTP as it was observed: forms of responses, methods, tokens, paths."""

import gzip
import http.client
import zlib
from contextlib import closing

import pytest

from tests.embedded import EmbeddedProctor
from tests.simulator.client import EXPIRE, bearer, connect, expire, left, recorded, send
from tests.support import PATIENCE, Simulate

METHODS = ["POST", "OPTIONS", "GET", "PUT"]


def test_the_response_is_chunked_json_with_a_session_cookie_and_without_a_reason_phrase(simulate: Simulate) -> None:
    response = expire(simulate())
    assert (response.status, response.reason) == (200, "")
    assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["Content-Length"] is None
    assert response.headers["Vary"] == "Accept-Encoding"
    assert response.headers["Set-Cookie"].startswith("JSESSIONID=")
    assert response.headers["Set-Cookie"].endswith("; Path=/proctor; HttpOnly")
    assert len(response.body) > 15_000


@pytest.mark.parametrize(("exams", "accepted", "compressed"), [(50, "gzip, deflate", True), (1, "gzip", False)])
def test_a_response_of_two_kilobytes_is_compressed_for_those_who_accept_it(
    simulate: Simulate, exams: int, accepted: str, compressed: bool
) -> None:
    simulator = simulate(exams=exams)
    response = expire(simulator, Accept_Encoding=accepted, **bearer(simulator))
    assert response.headers["Content-Encoding"] == ("gzip" if compressed else None)
    body = gzip.decompress(response.body) if compressed else response.body
    assert body.count(b"examId") == exams


def test_a_deployment_may_compress_no_response(simulate: Simulate) -> None:
    simulator = simulate(compresses=False)
    response = expire(simulator, Accept_Encoding="gzip", **bearer(simulator))
    assert response.headers["Content-Encoding"] is None
    assert response.body.count(b"examId") == 100


def test_a_response_is_not_compressed_unasked(simulate: Simulate) -> None:
    simulator = simulate()
    response = expire(simulator, Accept_Encoding="deflate", **bearer(simulator))
    assert response.headers["Content-Encoding"] is None
    with pytest.raises(zlib.error):
        zlib.decompress(response.body, wbits=47)


def test_options_with_a_good_token_verifies_it_and_changes_nothing(simulate: Simulate) -> None:
    simulator = simulate(exams=2)
    response = expire(simulator, "OPTIONS")
    assert (response.status, response.headers["Allow"], response.is_empty()) == (200, "POST", True)
    assert response.headers["Connection"] is None
    assert simulator.record == []
    assert left(simulator) == [0, 1]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_other_methods_get_an_empty_500(simulate: Simulate, method: str) -> None:
    simulator = simulate(exams=2)
    response = expire(simulator, method)
    assert (response.status, response.is_empty(), response.headers["Connection"]) == (500, True, "close")
    assert simulator.record == []


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "HEAD"])
def test_an_older_proctor_refuses_other_methods_with_405(simulate: Simulate, method: str) -> None:
    response = expire(simulate(older_methods=True), method)
    assert (response.status, response.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("headers", [{"Accept": "*/*"}, {"Authorization": "Basic YTpi"}])
def test_without_a_token_a_client_is_sent_to_the_identity_provider(
    simulate: Simulate, method: str, headers: dict[str, str]
) -> None:
    simulator = simulate(exams=2)
    response = expire(simulator, method, **headers)
    assert (response.status, response.is_empty()) == (302, True)
    assert "?SAMLRequest=" in response.headers["Location"]
    assert simulator.record == []


def test_the_way_to_the_identity_provider_may_be_a_form(simulate: Simulate) -> None:
    response = expire(simulate(sign_in="form"), Accept="*/*")
    assert (response.status, response.is_page()) == (200, True)
    assert b'<form method="post"' in response.body
    assert b"SAMLRequest" in response.body


@pytest.mark.parametrize("method", METHODS)
def test_a_token_never_seen_before_gets_401_that_repeats_it(simulate: Simulate, method: str) -> None:
    simulator = simulate(exams=2)
    response = expire(simulator, method, Authorization="Bearer a<b")
    assert (response.status, response.headers["Connection"], response.headers["Set-Cookie"]) == (401, None, None)
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="oauth", error="invalid_token", error_description="a<b"'
    )
    assert response.headers["Content-Type"] == "application/xml;charset=UTF-8"
    assert response.body == (
        b"<InvalidTokenException><error>invalid_token</error><error_description>a&lt;b</error_description>"
        b"</InvalidTokenException>"
    )
    assert not any(call["expired"] for call in simulator.record)


def test_the_rejection_is_json_for_those_who_ask_for_it(simulate: Simulate) -> None:
    response = expire(simulate(), Authorization="Bearer secret", Accept="application/json")
    assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert response.json() == {"error": "invalid_token", "error_description": "secret"}


def test_a_token_that_expired_before_its_first_use_is_one_never_seen_before(simulate: Simulate) -> None:
    simulator = simulate(exams=2, token_seconds=0)
    assert [expire(simulator, method).status for method in METHODS] == [401] * 4
    assert recorded(simulator)["expired"] == []


@pytest.mark.parametrize("first", ["POST", "OPTIONS"])
@pytest.mark.parametrize("method", METHODS)
def test_a_token_that_expired_after_it_was_accepted_gets_400(simulate: Simulate, first: str, method: str) -> None:
    simulator = simulate(exams=200, token_calls=1)
    token = bearer(simulator)
    assert expire(simulator, first, **token).status == 200
    response = expire(simulator, method, **token)
    assert (response.status, response.headers["Connection"]) == (400, "close")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="oauth"'
    assert b"<error>invalid_grant</error>" in response.body
    response = expire(simulator, method, Accept="application/json", **token)
    assert response.json() == {"error": "invalid_grant", "error_description": "Access token has expired"}
    assert expire(simulator, "POST").status == 200
    assert len([call for call in simulator.record if call["expired"]]) == (2 if first == "POST" else 1)


def test_a_token_is_good_for_as_many_calls_as_the_scenario_says(simulate: Simulate) -> None:
    simulator = simulate(token_calls=2)
    token = bearer(simulator)
    assert [expire(simulator, **token).status for _ in range(4)] == [200, 200, 400, 400]


@pytest.mark.parametrize("method", METHODS)
def test_a_token_for_a_foreign_audience_gets_403(simulate: Simulate, method: str) -> None:
    simulator = simulate(exams=2, foreign_audience=True)
    response = expire(simulator, method)
    assert (response.status, response.headers["WWW-Authenticate"]) == (403, 'Bearer realm="oauth"')
    assert b"<error>access_denied</error>" in response.body
    assert not any(call["expired"] for call in simulator.record)


@pytest.mark.parametrize("client_name", ["SBAC", "sbac_pt", "SBAC_PT ", "nobody;SBAC_PT"])
def test_an_unknown_client_name_gets_an_empty_500(simulate: Simulate, client_name: str) -> None:
    simulator = simulate(exams=2)
    response = expire(simulator, client_name=client_name)
    assert (response.status, response.is_empty(), response.headers["Connection"]) == (500, True, "close")
    assert recorded(simulator)["expired"] == []


@pytest.mark.parametrize("client_name", ["SBAC_PT", "SBAC_PT;x", "SBAC_PT.x", "SBAC_PT.x;y"])
def test_of_a_client_name_parameters_and_suffix_are_cut(simulate: Simulate, client_name: str) -> None:
    assert expire(simulate(exams=2), client_name=client_name).status == 200


@pytest.mark.parametrize("client_name", ["SBAC/PT", "SBAC\\PT"])
@pytest.mark.parametrize("token", [True, False])
def test_a_client_name_with_a_slash_gets_an_empty_400(simulate: Simulate, client_name: str, token: bool) -> None:
    simulator = simulate(client_name=client_name)
    headers = bearer(simulator) if token else {"Accept": "*/*"}
    response = expire(simulator, client_name=client_name, **headers)
    assert (response.status, response.is_empty(), response.headers["Connection"]) == (400, True, "close")
    assert response.headers["WWW-Authenticate"] is None
    assert simulator.record == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/proctor/", EXPIRE, EXPIRE + "SBAC_PT/more", "/proctor/Services/exams/SBAC_PT"])
def test_nothing_else_exists_in_proctor(simulate: Simulate, method: str, path: str) -> None:
    simulator = simulate()
    response = send(simulator, method, path, **bearer(simulator))
    assert (response.status, response.is_page()) == (404, True)
    assert response.headers["Set-Cookie"]
    assert send(simulator, method, path, Authorization="Bearer x").status == 401
    assert send(simulator, method, path).status == 302
    assert simulator.record == []


@pytest.mark.parametrize("path", ["/", "/proctor", "/elsewhere" + EXPIRE + "SBAC_PT"])
def test_nothing_exists_beside_proctor(simulate: Simulate, path: str) -> None:
    simulator = simulate()
    response = send(simulator, "POST", path, **bearer(simulator))
    assert (response.status, response.is_empty(), response.headers["Set-Cookie"]) == (404, True, None)


def statuses_on_one_connection(simulator: EmbeddedProctor, *requests: tuple[str, dict[str, str]]) -> list[int]:
    """The statuses of requests on the same connection."""
    statuses = []
    with closing(connect(simulator)) as connection:
        connection.connect()
        local = connection.sock.getsockname()
        for method, headers in requests:
            connection.request(method, EXPIRE + "SBAC_PT", b'""', headers)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            assert connection.sock.getsockname() == local
    return statuses


def test_a_connection_outlives_rejections(simulate: Simulate) -> None:
    simulator = simulate()
    token, bad = bearer(simulator), {"Authorization": "Bearer x"}
    assert statuses_on_one_connection(
        simulator, ("POST", token), ("POST", bad), ("OPTIONS", token), ("POST", {}), ("HEAD", bad), ("POST", token)
    ) == [200, 401, 200, 302, 401, 200]


def test_after_an_empty_500_the_connection_is_closed(simulate: Simulate) -> None:
    simulator = simulate()
    connection = http.client.HTTPConnection("127.0.0.1", simulator.port, timeout=PATIENCE)
    connection.connect()
    sock = connection.sock
    sock.sendall(
        f"GET {EXPIRE}SBAC_PT HTTP/1.1\r\nAuthorization: {bearer(simulator)['Authorization']}\r\n\r\n".encode()
    )
    with closing(sock), sock.makefile("rb") as stream:
        assert stream.read().endswith(b"\r\n\r\n")
