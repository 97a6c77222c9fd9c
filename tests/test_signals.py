"""SIGTERM and SIGINT: the call under way may finish, its rows are written, waits end at once."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import pytest

from app.signals import Interrupted, Stop
from app.simulator import Simulator
from tests.support import HEADER, PATIENCE, QUICK, Jobs, Simulate, delivered, expired, rows_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows cannot send these signals to a process")


HEADER_LINE = ",".join(HEADER).encode() + b"\r\n"


def start_and_hold(jobs: Jobs, simulator: Simulator, **settings: str) -> subprocess.Popen[bytes]:
    """A job in the middle of a call: the exams are changed, the answer is still to come."""
    process = jobs.start({**simulator.settings(), **QUICK, **settings})
    assert simulator.held.wait(PATIENCE)
    return process


def read_until(process: subprocess.Popen[bytes], event: str) -> None:
    """Read the log up to an event. The process needs `bufsize=0`, so that no line after it gets lost."""
    assert process.stderr
    for line in process.stderr:
        if json.loads(line)["event"] == event:
            return
    pytest.fail(f"the process ended without the event {event!r}")


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT, signal.SIGHUP])
def test_a_signal_in_a_call_lets_it_finish_and_writes_its_rows(simulate: Simulate, jobs: Jobs, signum: Signals) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = start_and_hold(jobs, simulator)
    process.send_signal(signum)
    simulator.release.set()
    result = jobs.finish(process)
    assert result.code == 128 + signum
    assert len(result.exam_ids) == 200
    assert sorted(result.exam_ids) == sorted(delivered(simulator))
    assert len(simulator.record) == 2
    assert result.summary["outcome"] == "interrupted"
    assert result.summary["lost"] == []


def test_a_signal_in_a_call_leaves_the_volume_in_final_form(simulate: Simulate, jobs: Jobs, tmp_path: Path) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = start_and_hold(jobs, simulator, OUTPUT_DIR=str(tmp_path))
    process.send_signal(SIGTERM)
    simulator.release.set()
    assert jobs.finish(process).code == 143
    (csv,) = tmp_path.glob("expired_exams_*.csv")
    assert not list(tmp_path.glob("*.partial"))
    assert sorted(row["examId"] for row in rows_of(csv.read_bytes())) == sorted(expired(simulator))
    summary = json.loads(csv.with_suffix(".json").read_bytes())
    assert (summary["outcome"], summary["exit_code"]) == ("interrupted", 143)


def test_a_signal_in_a_call_whose_answer_gets_lost_ends_the_run_and_names_the_loss(
    simulate: Simulate, jobs: Jobs
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = start_and_hold(jobs, simulator, READ_TIMEOUT="0.5")
    process.send_signal(SIGTERM)
    result = jobs.finish(process)
    simulator.release.set()
    simulator.wait_idle()
    assert result.code == 143
    assert len(simulator.record) == 2
    assert len(result.summary["lost"]) == 1
    assert sorted(result.exam_ids) == sorted(simulator.record[0]["expired"])


@pytest.mark.parametrize("settings", [{}, {"OUTPUT_DIR": "."}], ids=["stdout", "volume"])
def test_a_second_signal_in_a_call_ends_it_at_once_and_names_its_window(
    simulate: Simulate, jobs: Jobs, settings: dict[str, str]
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = start_and_hold(jobs, simulator, **settings)
    process.send_signal(SIGTERM)
    process.send_signal(SIGINT)  # another one, as two of a kind may arrive as one
    result = jobs.finish(process)
    simulator.release.set()
    simulator.wait_idle()

    assert result.code in (128 + SIGTERM, 128 + SIGINT)
    assert result.summary["outcome"] == "interrupted"
    volume = [path.read_bytes() for path in jobs.directory.glob("expired_exams_*.csv")]
    (csv,) = volume or [result.stdout]
    assert sorted(row["examId"] for row in rows_of(csv)) == sorted(simulator.record[0]["expired"])
    (window,) = result.summary["lost"]
    (logged,) = result.events("response_lost")
    assert (window["start"], window["end"]) == (logged["start"], logged["end"])
    first, held = simulator.record
    assert (first["fault"], held["fault"]) == ("ok", "hold")
    start, end = map(datetime.fromisoformat, (window["start"], window["end"]))
    assert start <= datetime.fromisoformat(held["start"]) <= datetime.fromisoformat(held["changed"]) <= end
    assert end - start >= timedelta(seconds=float(QUICK["READ_TIMEOUT"]))  # Proctor may go on that long
    assert window["reason"] == "a second signal ended the call"


@pytest.mark.parametrize("setting", ["AUTH_PASSWORD_FILE", ".env"])
def test_a_signal_ends_a_wait_for_a_setting_from_a_named_pipe(simulate: Simulate, jobs: Jobs, setting: str) -> None:
    pipe = jobs.directory / (setting if setting == ".env" else "pipe")
    os.mkfifo(pipe)
    settings = {**simulate().settings(), "AUTH_PASSWORD": "", setting: str(pipe)}
    process = jobs.start(settings)
    writer = os.open(pipe, os.O_WRONLY)  # comes back when the job has opened the other end
    process.send_signal(SIGTERM)
    assert jobs.finish(process).code == 128 + SIGTERM
    os.close(writer)


@pytest.mark.parametrize("script", ["faults", "token_faults"])
@pytest.mark.parametrize("signum", [SIGTERM, SIGINT])
def test_a_signal_in_a_back_off_wait_ends_it_at_once(
    simulate: Simulate, jobs: Jobs, script: str, signum: Signals
) -> None:
    simulator = simulate(**{script: ["503:3600"]})
    process = jobs.start({**simulator.settings(), **QUICK, "MAX_WAIT": "3600"}, bufsize=0)
    read_until(process, "retry")
    process.send_signal(signum)
    result = jobs.finish(process)
    assert result.code == 128 + signum
    assert result.stdout == HEADER_LINE
    assert result.summary["outcome"] == "interrupted"
    assert len(simulator.record) + simulator.token_requests <= 2
    assert expired(simulator) == []


def test_a_signal_in_a_token_request_ends_it_at_once(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token"
        process = jobs.start({**simulator.settings(), **QUICK, "AUTH_URL": url, "READ_TIMEOUT": "3600"})
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1)
            process.send_signal(SIGTERM)
            result = jobs.finish(process)
    assert result.code == 143
    assert result.stdout == HEADER_LINE
    assert simulator.record == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a pipe of a size of its own")
def test_a_second_signal_frees_a_run_whose_reader_has_stopped_and_the_log_gets_the_rows(
    simulate: Simulate, jobs: Jobs, tmp_path: Path
) -> None:
    import fcntl

    simulator = simulate(faults=["hold"])
    log = tmp_path / "log"
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)  # less than a batch
    with open(reader, "rb", buffering=0) as stdout, log.open("wb") as stderr:
        with open(writer, "wb") as pipe:
            process = jobs.start({**simulator.settings(), **QUICK}, stdout=pipe, stderr=stderr)
        assert stdout.read(len(HEADER_LINE)) == HEADER_LINE
        assert simulator.held.wait(PATIENCE)
        process.send_signal(signal.SIGTERM)
        simulator.release.set()
        taken = stdout.read(1)  # from now on the job is writing, and nobody reads
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 74
        taken += stdout.read(1 << 20)

    whole = taken[: taken.rindex(b"\r\n") + 2]
    events = [json.loads(line) for line in log.read_bytes().splitlines()]
    unwritten = "".join(f"{event['row']}\r\n" for event in events if event["event"] == "unwritten_row").encode()
    assert whole
    assert unwritten
    rows = rows_of(HEADER_LINE + whole + unwritten)
    assert sorted(row["examId"] for row in rows) == sorted(delivered(simulator))
    assert len(simulator.record) == 1
    assert events[-1]["summary"]["outcome"] == "failed"


def test_a_signal_raises_only_in_a_wait_that_is_interruptible_by_it() -> None:
    stop = Stop()
    with stop.waiting():
        stop._receive(SIGTERM, None)
    with stop.interruptible(after=2):
        with stop.waiting():
            pass
        stop._receive(SIGTERM, None)  # not while it waits: a library may hold a lock now
        with pytest.raises(Interrupted), stop.waiting():
            pytest.fail("the wait began")
    with pytest.raises(Interrupted), stop.interruptible(after=2):
        pytest.fail("the block began")
    with stop.waiting():
        stop._receive(SIGTERM, None)


def test_a_signal_does_not_end_what_the_first_one_has_called() -> None:
    stop = Stop()
    said = []

    def announce(_: int) -> None:
        stop._receive(SIGTERM, None)
        said.append("all of it")

    stop.on_first = announce
    with stop.interruptible(after=2), stop.waiting(), suppress(Interrupted):
        stop._receive(SIGTERM, None)
    assert said == ["all of it"]


def test_the_signal_that_ends_a_wait_does_so_in_its_middle() -> None:
    stop = Stop()
    with pytest.raises(Interrupted), stop.interruptible(after=1), stop.waiting():
        stop._receive(SIGTERM, None)
        pytest.fail("the wait went on")
    assert stop.signum == SIGTERM
