"""Calls that were not sent or were rejected: nothing was expired, so they are made again and nothing is lost."""

import socket
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.simulator import Simulator
from tests.proctor.bodies import EXAM, batch
from tests.promise import holds
from tests.servers import in_turn, responding, response, serving
from tests.support import HEADER_LINE, Result, Run, Serve, Simulate, expired

NOT_PASSED_ON = ["503", "503:0", "503:date", "429", "429:0", "429:date", "envoy-before", "envoy-overflow"]
QUICK_TO_BE_LATE = {"READ_TIMEOUT": "3"}  # a rejection after a tenth of that is late
LATE = 0.5  # seconds


def settled(simulator: Simulator, result: Result) -> bool:
    """Whether nothing was lost, and the CSV holds every exam that the server changed exactly once."""
    return result.summary["lost"] == [] and sorted(result.exam_ids) == sorted(expired(simulator))


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("fault", NOT_PASSED_ON)
def test_a_call_that_is_rejected_at_once_is_made_again_and_nothing_is_lost(
    simulate: Simulate, run: Run, fault: str, position: int
) -> None:
    simulator = simulate(exams=150, faults=[*["ok"] * position, fault])
    result = run(simulator)
    assert result.code == 0
    assert settled(simulator, result)
    assert len(result.exam_ids) == 150
    (retry,) = result.events("retry")
    assert f"Proctor rejected the call: {fault[:3] if fault[:3].isdecimal() else 503}" in retry["reason"]


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("fault", NOT_PASSED_ON)
def test_a_call_that_is_rejected_at_every_attempt_is_unavailable(
    simulate: Simulate, run: Run, fault: str, attempts: int
) -> None:
    simulator = simulate(exams=150, faults=["ok", *[fault] * 5])
    result = run(simulator, MAX_ATTEMPTS=str(attempts))
    assert result.code == 69
    assert settled(simulator, result)
    assert len(result.exam_ids) == 100
    assert len(simulator.record) == 1 + attempts
    assert (result.summary["calls"], result.summary["retries"]) == (1, attempts - 1)
    assert f"Attempts: {attempts}." in result.message


@pytest.mark.parametrize("longest_wait", [60, 4000])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured_up_to_max_wait(
    simulate: Simulate, run: Run, status: int, as_date: bool, longest_wait: int
) -> None:
    hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True) if as_date else "3600"
    with serving(responding(response(status, Retry_After=hour))) as server:
        result = run(simulate(), PROCTOR_URL=server.url, MAX_WAIT=str(longest_wait), MAX_RUNTIME="3")
    assert (result.code, result.summary["outcome"], result.summary["lost"]) == (75, "time_limit", [])
    assert len(server.requests) == 1
    (retry,) = result.events("retry")
    assert min(longest_wait, 3500) <= retry["wait_seconds"] <= min(longest_wait, 3600)
    assert str(status) in retry["reason"]


@pytest.mark.parametrize("value", ["soon", "-1", "9" * 400, "Wed, 99 Foo 2026 00:00:00 GMT", "\u00b2"])
def test_a_malformed_retry_after_stops_no_run(simulate: Simulate, run: Run, value: str) -> None:
    with serving(responding(in_turn(response(503, Retry_After=value), batch(EXAM)))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids, result.summary["lost"]) == (0, ["exam"], [])


@pytest.mark.parametrize("fault", ["503-late", "429-late", "503-late:0", "maintenance-503", "maintenance-429"])
def test_a_rejection_that_is_late_is_a_lost_response(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=250, faults=["ok", fault], late_seconds=LATE)
    result = run(simulator, **QUICK_TO_BE_LATE)
    assert_lost(simulator, result)


@pytest.mark.parametrize("fault", ["varnish-after", "varnish-before", "envoy-after"])
def test_a_rejection_with_the_marks_of_a_gateway_that_passed_the_call_on_is_a_lost_response(
    simulate: Simulate, run: Run, fault: str
) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator)
    assert_lost(simulator, result)


def assert_lost(simulator: Simulator, result: Result) -> None:
    """The second call's response was lost: its window holds the work, and all other exams have a row."""
    lost = simulator.record[1]
    assert result.code == 65
    assert sorted(result.exam_ids) == sorted(set(expired(simulator)) - set(lost["expired"]))
    (window,) = result.summary["lost"]
    assert holds(window, lost.get("changed", lost["end"]))


@pytest.mark.parametrize(
    "headers",
    [{"X-Varnish": "32770"}, {"Via": "1.1 edge (Varnish/7.1)"}, {"Via": "1.1 proxy, 1.1 VARNISH"}],
)
def test_varnish_is_known_by_its_headers(simulate: Simulate, run: Run, serve: Serve, headers: dict[str, str]) -> None:
    result = run(simulate(), PROCTOR_URL=serve(503, headers, b""), MAX_LOST_RESPONSES="0")
    assert (result.code, len(result.summary["lost"])) == (65, 1)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (" reset reason: overflow", 69),
        (" reset reason: connection timeout", 65),
        (" reset reason: local reset", 65),
        (" retried and the latest reset reason: remote connection failure", 65),
        ("", 65),
    ],
)
def test_envoy_is_known_by_the_reset_reason_in_its_body(
    simulate: Simulate, run: Run, serve: Serve, reason: str, code: int
) -> None:
    page = f"upstream connect error or disconnect/reset before headers.{reason}".encode()
    result = run(simulate(), PROCTOR_URL=serve(503, {}, page), MAX_LOST_RESPONSES="0", MAX_ATTEMPTS="2")
    assert (result.code, len(result.summary["lost"])) == (code, int(code == 65))


@pytest.mark.parametrize(("title", "code"), [("Unable to connect", 69), ("Internal error", 65)])
def test_tinyproxys_500_is_a_rejection_where_it_could_not_connect(
    simulate: Simulate, run: Run, serve: Serve, title: str, code: int
) -> None:
    page = f"<html><head><title>500 {title}</title></head></html>".encode()
    url = serve(500, {"Server": "tinyproxy/1.11.0"}, page)
    result = run(simulate(), PROCTOR_URL=url, MAX_LOST_RESPONSES="0", MAX_ATTEMPTS="2")
    assert (result.code, len(result.summary["lost"])) == (code, int(code == 65))


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "https://nowhere.invalid"])
def test_what_cannot_be_reached_is_tried_again_and_then_unavailable(
    simulate: Simulate, run: Run, setting: str, url: str
) -> None:
    simulator = simulate()
    result = run(simulator, MAX_ATTEMPTS="3", **{setting: url})
    assert result.code == 69
    assert result.stdout == HEADER_LINE
    assert [event["attempt"] for event in result.events("retry")] == [1, 2]
    assert url.partition("//")[2] in result.message
    assert result.summary["lost"] == []
    assert simulator.record == []


def test_a_connect_timeout_is_tried_again_and_then_unavailable(simulate: Simulate, run: Run) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # fills the backlog: no further connection is accepted
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = run(simulate(), PROCTOR_URL=url, CONNECT_TIMEOUT="0.1", MAX_ATTEMPTS="2")
    assert result.code == 69
    assert len(result.events("retry")) == 1
    assert result.summary["lost"] == []
