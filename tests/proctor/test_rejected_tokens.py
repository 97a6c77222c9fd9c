"""Tokens that Proctor rejects: a new one and the call again, and nothing is lost."""

import pytest

from tests.proctor.bodies import EXAM, batch
from tests.servers import Request, in_turn, json_response, responding, response, serving
from tests.support import Run, Simulate, delivered, expired

CHALLENGE = 'Bearer realm="oauth"'


@pytest.mark.parametrize("fault", ["401", "token-expired"])
def test_a_token_that_proctor_accepted_before_is_replaced_at_once(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator, MAX_ATTEMPTS="1", LOG_LEVEL="DEBUG")
    assert (result.code, result.summary["lost"]) == (0, [])
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 250
    assert simulator.token_requests == 2
    assert result.events("retry") == []
    (event,) = result.events("token_rejected")
    assert "requesting a new one" in event["message"]


@pytest.mark.parametrize("fault", ["401", "token-expired"])
def test_a_first_token_that_is_rejected_is_replaced(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=150, faults=[fault])
    result = run(simulator)
    assert (result.code, result.summary["lost"]) == (0, [])
    assert len(result.exam_ids) == 150
    assert simulator.token_requests == 2


@pytest.mark.parametrize(
    "rejection",
    [
        response(400, WWW_Authenticate=CHALLENGE),
        response(400, WWW_Authenticate=CHALLENGE.lower()),
        json_response({"error": "invalid_grant", "error_description": "Access token has expired"}, 400),
        response(400, b"<InvalidGrantException><error>invalid_grant</error></InvalidGrantException>"),
        response(401, WWW_Authenticate=CHALLENGE),
        response(401),
    ],
)
def test_each_form_of_the_rejection_is_understood(simulate: Simulate, run: Run, rejection: bytes) -> None:
    simulator = simulate()
    responses = [batch(EXAM, more=True), rejection, batch()]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulator, PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids, result.summary["lost"]) == (0, ["exam"], [])
    assert simulator.token_requests == 2
    tokens = [request.headers["Authorization"] for request in server.requests]
    assert tokens[0] == tokens[1] != tokens[2]


def test_a_token_that_expires_with_each_call_is_replaced_for_each_call(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=50, limit=10, token_calls=1)
    result = run(simulator)
    assert (result.code, result.summary["lost"]) == (0, [])
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 50
    assert simulator.token_requests == result.summary["calls"] == 5


def test_new_tokens_that_are_rejected_from_the_first_call_on_end_with_both_causes(simulate: Simulate, run: Run) -> None:
    simulator = simulate(faults=["401"] * 9)
    result = run(simulator, MAX_ATTEMPTS="3", LOG_LEVEL="DEBUG")
    assert (result.code, result.summary["lost"], result.rows) == (77, [], [])
    assert [event["attempt"] for event in result.events("retry")] == [1, 2]
    assert len(simulator.record) == simulator.token_requests == 3
    for words in ("AUTH_URL", "credentials", "token info service", "Nothing was expired"):
        assert words in result.message


def test_new_tokens_that_are_rejected_are_tried_again_with_growing_waits(simulate: Simulate, run: Run) -> None:
    result = run(simulate(faults=["401"] * 9), MAX_WAIT="3600", MAX_RUNTIME="3")
    assert (result.code, result.summary["outcome"]) == (75, "time_limit")
    assert result.events("retry")[0]["wait_seconds"] > 0


def test_new_tokens_that_are_rejected_later_on_are_an_outage(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, faults=["ok", *["401"] * 9])
    result = run(simulator, MAX_ATTEMPTS="3")
    assert (result.code, result.summary["lost"]) == (69, [])
    assert sorted(result.exam_ids) == sorted(delivered(simulator)) == sorted(expired(simulator))
    assert len(result.exam_ids) == 100
    assert "token info service" in result.message
    assert "AUTH_" not in result.message


def _repeats_token(request: Request) -> bytes:
    """As Proctor's own 401, and more: the token in every part of the response."""
    token = request.headers["Authorization"].split()[1]
    challenge = f'Bearer realm="oauth", error="invalid_token", error_description="{token}"'
    page = f"<html><head><title>{token.upper()}</title></head><body>{token}</body></html>".encode()
    return response(
        int(request.path.rpartition("-")[2]),
        page,
        WWW_Authenticate=challenge,
        Content_Type=f"text/{token}",
        Location=f"https://sso.example.org/{token}",
        Retry_After=token,
    )


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 418, 500, 503])
def test_a_response_that_repeats_the_token_brings_it_into_no_log(simulate: Simulate, run: Run, status: int) -> None:
    simulator = simulate()
    with serving(responding(_repeats_token)) as server:
        client_name = f"CLIENT-{status}"
        settings = {"PROCTOR_URL": server.url, "CLIENT_NAME": client_name, "MAX_LOST_RESPONSES": "0"}
        result = run(simulator, LOG_LEVEL="DEBUG", MAX_ATTEMPTS="2", **settings)
    tokens = {request.headers["Authorization"].split()[1] for request in server.requests}
    assert tokens
    for token in tokens:
        assert token.casefold() not in (result.stdout + result.stderr).decode().casefold()
    assert result.code != 0
