"""Responses that another call would get again: the run stops, and its message says what to change."""

import pytest

from tests.servers import Request, responding, response, serving
from tests.support import Jobs, Run, Serve, Simulate, expired


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("403", 77, "a gateway's response, not Proctor's"),
        ("foreign-audience", 77, "issued for another service"),
        ("401-basic", 77, "Basic login"),
        ("300", 77, "sign in"),
        ("302", 77, "sign in"),
        ("sign-in", 77, "sign in"),
        ("404", 78, "PROCTOR_URL"),
        ("405", 78, "PROCTOR_URL"),
        ("plain-http", 78, "https"),
        ("400", 76, "gateways in between"),
        ("406", 76, "gateways in between"),
        ("418", 76, "gateways in between"),
    ],
)
@pytest.mark.parametrize("position", [0, 1])
def test_what_is_wrong_stops_the_run_with_a_message_that_says_what_to_change(
    simulate: Simulate, run: Run, fault: str, code: int, words: str, position: int
) -> None:
    simulator = simulate(exams=150, faults=[*["ok"] * position, fault])
    result = run(simulator)
    assert result.code == code
    assert words in result.message
    assert "SAMLRequest" not in result.message
    assert ("Nothing was expired." if position == 0 else "others stay due.") in result.message
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 100 * position
    assert len(simulator.record) == 1 + position
    assert (result.summary["outcome"], result.summary["lost"]) == ("failed", [])


@pytest.mark.parametrize("fault", ["404-slow", "405-slow"])
def test_a_wrong_url_is_one_however_late_it_is_reported_first(simulate: Simulate, run: Run, fault: str) -> None:
    result = run(simulate(faults=[fault], late_seconds=0.5), READ_TIMEOUT="3")
    assert (result.code, result.summary["lost"]) == (78, [])


def test_a_redirect_that_is_late_from_the_first_url_is_a_sign_in(simulate: Simulate, run: Run) -> None:
    result = run(simulate(faults=["302-slow"], late_seconds=0.5), READ_TIMEOUT="3")
    assert (result.code, result.summary["lost"]) == (77, [])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_proctor_that_has_moved_is_not_followed_but_named(simulate: Simulate, run: Run, status: int) -> None:
    simulator = simulate()

    def moved(request: Request) -> bytes:
        return response(status, Location=simulator.url + request.path)

    with serving(responding(moved)) as server:
        result = run(simulator, PROCTOR_URL=server.url)
    assert result.code == 78
    assert f"moved to {simulator.url}/proctor" in result.message
    assert "PROCTOR_URL" in result.message
    assert simulator.record == []


@pytest.mark.parametrize("status", [302, 304, 305])
def test_a_redirect_to_nowhere_is_unexpected_and_no_sign_in(
    simulate: Simulate, run: Run, serve: Serve, status: int
) -> None:
    result = run(simulate(), PROCTOR_URL=serve(status, {}, b""))
    assert result.code == 76
    assert str(status) in result.message
    assert "sign in" not in result.message


@pytest.mark.parametrize("status", [404, 418, 500, 503])
def test_what_a_page_says_of_itself_is_shown_but_not_at_any_length(
    simulate: Simulate, run: Run, serve: Serve, status: int
) -> None:
    page = f"<html><head><title>Down\n for &amp; {'long ' * 1900}</title></head></html>".encode()
    url = serve(status, {"Content-Type": "x" * 10_000, "Location": "https://" + "y" * 10_000}, page)
    result = run(simulate(), PROCTOR_URL=url, MAX_ATTEMPTS="2", MAX_LOST_RESPONSES="0", LOG_LEVEL="DEBUG")
    assert result.code != 0
    assert any('titled "Down for & long' in event["message"] for event in result.log)
    assert all(len(event["message"]) < 2000 for event in result.log)


def test_what_a_page_says_cannot_forge_a_line_of_the_log(simulate: Simulate, jobs: Jobs, serve: Serve) -> None:
    page = b"<title>a\x1b[2J&#10;2026-11-24T00:00:00.000Z INFO    Done&#27;[31m</title>"
    result = jobs.run({**simulate().settings(), "PROCTOR_URL": serve(404, {}, page)})
    assert result.code == 78
    assert b"INFO Done" in result.stderr
    assert not any(
        line.startswith(b"2026-11-24T00:00:00.000Z") or b"\x1b" in line for line in result.stderr.splitlines()
    )
    assert all(line.startswith(b"20") for line in result.stderr.splitlines())
