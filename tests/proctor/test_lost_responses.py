"""Lost responses: the request was sent and no complete response was received, so exams may have been expired unseen."""

import os
import select
import signal
from datetime import UTC, datetime, timedelta

import pytest

from tests.embedded import EmbeddedProctor
from tests.proctor.bodies import EXAM, batch, body
from tests.promise import holds
from tests.servers import Connection, resetting, serving
from tests.support import PATIENCE, QUICK, Jobs, Result, Run, Serve, Simulate, expired

BROKEN = "cut-status cut-lines cut-head cut-blank cut-body cut-chunk cut-length cut-gzip reset-after".split()
AFTER_WORK = [*BROKEN, *"500-after 500-half 408-after 502-after 504-after 524-after html not-json".split()]
LATE = {"late_seconds": 0.5}
QUICK_TO_BE_LATE = {"READ_TIMEOUT": "3"}


def assert_lost(simulator: EmbeddedProctor, result: Result, call: int = 1) -> None:
    """The response to that call was lost: its window holds the work, and all other exams have a row."""
    simulator.wait_idle()
    lost = simulator.record[call]
    assert result.code == 65
    assert sorted(result.exam_ids) == sorted(set(expired(simulator)) - set(lost["expired"]))
    (window,), (event,) = result.summary["lost"], result.events("response_lost")
    assert {**window} == {name: event[name] for name in ("start", "end", "reason")}
    assert holds(window, lost["start"])
    assert holds(window, lost.get("changed", lost["start"]))


@pytest.mark.parametrize("fault", ["reset-before", "500", *AFTER_WORK])
def test_a_lost_response_is_reported_with_its_window_and_the_rows_before_it_are_kept(
    simulate: Simulate, run: Run, fault: str
) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator)
    assert_lost(simulator, result)
    assert result.summary["outcome"] == "drained"


@pytest.mark.parametrize("fault", AFTER_WORK)
def test_the_window_ends_read_timeout_after_the_failure_and_so_does_the_wait(
    simulate: Simulate, run: Run, fault: str
) -> None:
    simulator = simulate(faults=[fault])
    result = run(simulator, READ_TIMEOUT="77", MAX_LOST_RESPONSES="0", MAX_WAIT="0")
    (window,) = result.summary["lost"]
    start, end = (datetime.fromisoformat(window[side]) for side in ("start", "end"))
    worked = datetime.fromisoformat(simulator.record[0]["changed"])
    assert start <= worked
    assert worked + timedelta(seconds=77) <= end <= datetime.now(UTC) + timedelta(seconds=78)


@pytest.mark.parametrize(("longest_wait", "wait"), [("3600", 30), ("20", 20)])
@pytest.mark.parametrize("fault", ["reset-after", "cut-body", "500-after", "504-after", "html"])
def test_after_a_lost_response_proctor_is_left_read_timeout_to_finish_the_call(
    simulate: Simulate, run: Run, fault: str, longest_wait: str, wait: int
) -> None:
    simulator = simulate(faults=[fault])
    result = run(simulator, READ_TIMEOUT="30", MAX_WAIT=longest_wait, MAX_RUNTIME="3")
    assert (result.code, len(simulator.record)) == (65, 1)
    (retry,) = result.events("retry")
    assert retry["wait_seconds"] == wait


@pytest.mark.parametrize("status", [201, 206, 500])
@pytest.mark.parametrize("content", [body(EXAM), b'<input name="SAMLRequest"/>'], ids=["exams", "sign-in"])
def test_a_list_of_exams_counts_with_status_200_alone(
    simulate: Simulate, run: Run, serve: Serve, status: int, content: bytes
) -> None:
    result = run(simulate(), PROCTOR_URL=serve(status, {}, content), MAX_LOST_RESPONSES="0")
    assert result.code == 65
    assert len(result.summary["lost"]) == 1
    assert result.rows == []


@pytest.mark.parametrize("fault", ["silence-before", "silence-after", "drip"])
def test_a_response_that_is_not_complete_in_time_is_lost(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=150, faults=[fault])
    result = run(simulator, READ_TIMEOUT="2")
    assert_lost(simulator, result, call=0)
    assert "2 seconds" in result.summary["lost"][0]["reason"]


@pytest.mark.parametrize("fault", "404-late 405-late 302-late 400-late 403-late maintenance-200".split())
def test_what_comes_late_from_a_url_that_worked_before_is_a_lost_response(
    simulate: Simulate, run: Run, fault: str
) -> None:
    simulator = simulate(exams=250, faults=["ok", fault], **LATE)
    result = run(simulator, **QUICK_TO_BE_LATE)
    assert_lost(simulator, result)


def test_a_reset_after_the_request_is_lost(simulate: Simulate, run: Run) -> None:
    with serving(resetting) as server:
        result = run(simulate(), PROCTOR_URL=server.url, MAX_LOST_RESPONSES="0")
    assert result.code == 65
    assert len(result.summary["lost"]) == len(server.connections) == 1


@pytest.mark.parametrize("tolerated", [0, 1, 2])
@pytest.mark.parametrize("fault", ["500", "500-half"])
def test_too_many_losses_from_the_first_call_on_are_explained(
    simulate: Simulate, run: Run, fault: str, tolerated: int
) -> None:
    simulator = simulate(faults=[fault] * 9)
    result = run(simulator, MAX_LOST_RESPONSES=str(tolerated))
    assert (result.code, result.summary["outcome"]) == (65, "failed")
    assert len(simulator.record) == len(result.summary["lost"]) == tolerated + 1
    causes = ("CLIENT_NAME", "RabbitMQ", "config", "student service", "database")
    for words in (*causes, "exams may have been changed", f"MAX_LOST_RESPONSES={tolerated}"):
        assert words in result.message


def test_an_unknown_client_name_ends_the_run_as_soon_as_too_many_responses_are_lost(
    simulate: Simulate, run: Run
) -> None:
    simulator = simulate()
    result = run(simulator, CLIENT_NAME="SBAC_PX")
    assert result.code == 65
    assert "CLIENT_NAME" in result.message
    assert len(simulator.record) == len(result.summary["lost"]) == 3


def test_too_many_losses_later_on_do_not_blame_the_settings(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, faults=["ok", "500", "500"])
    result = run(simulator, MAX_LOST_RESPONSES="1")
    assert (result.code, len(result.summary["lost"])) == (65, 2)
    assert "CLIENT_NAME" not in result.message


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot stop a process")
def test_a_response_that_was_complete_before_a_freeze_ended_is_read(simulate: Simulate, jobs: Jobs) -> None:
    def serve(connection: Connection) -> None:
        connection.receive()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        connection.send(batch(EXAM))
        select.select([connection.socket], [], [], 3.5)  # longer than READ_TIMEOUT; the client is stopped
        process.send_signal(signal.SIGCONT)

    with serving(serve) as server:
        settings = {**simulate().settings(), **QUICK, "PROCTOR_URL": server.url, "READ_TIMEOUT": "3"}
        process = jobs.start(settings)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    result = Result(process.returncode, stdout, stderr)
    assert (result.code, result.exam_ids, result.summary["lost"]) == (0, ["exam"], [])
    assert len(server.requests) == 1
