"""SIGTERM and SIGINT: the call under way may finish, its rows are written, waits end at once."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from types import SimpleNamespace
from typing import Any

import pytest

from app.signals import FIRST, SECOND, Interrupted, Stop
from tests.embedded import EmbeddedProctor
from tests.support import HEADER_LINE, PATIENCE, QUICK, Jobs, Simulate, configured, delivered, expired, ids, rows_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows cannot send these signals to a process")


def start_and_hold(jobs: Jobs, simulator: EmbeddedProctor, **settings: str) -> subprocess.Popen[bytes]:
    """A job in the middle of a call: the exams are changed, the response is still to come."""
    process = jobs.start({**simulator.settings(), **QUICK, **settings})
    assert simulator.held.wait(PATIENCE)
    return process


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
    assert sorted(ids(csv.read_bytes())) == sorted(expired(simulator))
    summary = json.loads(csv.with_suffix(".json").read_bytes())
    assert (summary["outcome"], summary["exit_code"]) == ("interrupted", 143)


def test_a_signal_in_a_call_whose_response_is_lost_ends_the_run_and_reports_the_loss(
    simulate: Simulate, jobs: Jobs
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = start_and_hold(jobs, simulator, READ_TIMEOUT="3")
    process.send_signal(SIGTERM)
    result = jobs.finish(process)
    simulator.release.set()
    simulator.wait_idle()
    assert result.code == 65
    assert result.summary["outcome"] == "interrupted"
    assert len(simulator.record) == 2
    assert len(result.summary["lost"]) == 1
    assert sorted(result.exam_ids) == sorted(simulator.record[0]["expired"])


@pytest.mark.parametrize("settings", [{}, {"OUTPUT_DIR": "."}], ids=["stdout", "volume"])
def test_a_second_signal_in_a_call_ends_it_at_once_and_reports_its_window(
    simulate: Simulate, jobs: Jobs, settings: dict[str, str]
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = start_and_hold(jobs, simulator, **settings)
    process.send_signal(SIGTERM)
    process.send_signal(SIGINT)  # another one, as two of a kind may arrive as one
    result = jobs.finish(process)
    simulator.release.set()
    simulator.wait_idle()

    assert result.code == 65
    assert result.summary["outcome"] == "interrupted"
    volume = [path.read_bytes() for path in jobs.directory.glob("expired_exams_*.csv")]
    (csv,) = volume or [result.stdout]
    assert sorted(ids(csv)) == sorted(simulator.record[0]["expired"])
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
    writer = os.open(pipe, os.O_WRONLY)  # returns when the job has opened the other end
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
    jobs.read_until(process, "retry")
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


def test_a_signal_while_the_monitor_is_informed_of_wrong_settings_does_not_hide_them(jobs: Jobs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = jobs.start({**QUICK, "HEARTBEAT_URL": f"http://127.0.0.1:{server.getsockname()[1]}/ping"})
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1)
            process.send_signal(SIGTERM)
            assert jobs.finish(process).code == 78


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


def test_a_signal_in_a_back_off_wait_after_a_loss_ends_with_the_loss(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate(faults=["cut-body"])
    process = jobs.start({**simulator.settings(), **QUICK, "MAX_WAIT": "3600", "READ_TIMEOUT": "3600"}, bufsize=0)
    jobs.read_until(process, "retry")
    process.send_signal(SIGTERM)
    result = jobs.finish(process)
    assert (result.code, result.summary["outcome"]) == (65, "interrupted")
    assert len(result.summary["lost"]) == len(simulator.record) == 1


def test_two_signals_before_the_request_is_sent_lose_nothing(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        settings = {**simulator.settings(), **QUICK, "PROCTOR_URL": url, "CONNECT_TIMEOUT": "3600"}
        process = jobs.start(settings)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1)  # of a TLS handshake that goes no further
            process.send_signal(SIGTERM)
            process.send_signal(SIGINT)
            result = jobs.finish(process)
    assert result.code in (128 + SIGTERM, 128 + SIGINT)
    assert (result.summary["outcome"], result.summary["lost"]) == ("interrupted", [])
    assert result.stdout == HEADER_LINE


@pytest.fixture
def stop() -> Iterator[Stop]:
    """Handles the signals of this process, until the test ends."""
    numbers = (SIGTERM, SIGINT, signal.SIGHUP, signal.SIGCHLD)
    handlers = {number: signal.getsignal(number) for number in numbers}
    stop = Stop()
    stop.install()
    yield stop
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for end in stop._wakeups:
        end.close()


def signal_before_each_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have SIGTERM received after the last look at the count of signals, and before the system begins to wait."""
    select_really = select.select

    def select_late(readable: Any, writable: Any, exceptional: Any, seconds: float) -> Any:
        os.kill(os.getpid(), SIGTERM)
        ready = select_really(readable, writable, exceptional, min(seconds, PATIENCE))
        assert any(ready), "the signal went unnoticed"
        return ready

    monkeypatch.setattr("app.signals.select", SimpleNamespace(select=select_late))


def test_a_signal_received_just_before_a_wait_ends_it_at_once(stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_before_each_wait(monkeypatch)
    with pytest.raises(Interrupted):
        stop.sleep(PATIENCE)
    reader, writer = socket.socketpair()
    with reader, writer, pytest.raises(Interrupted):
        stop.wait_readable(reader, PATIENCE, ended_by=SECOND)


def test_a_first_signal_does_not_end_a_wait_for_the_second(stop: Stop) -> None:
    os.kill(os.getpid(), SIGTERM)
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.send(b"x")
        assert stop.wait_readable(reader, PATIENCE, ended_by=SECOND)
        assert reader.recv(1) == b"x"
        assert not stop.wait_readable(reader, 0, ended_by=SECOND)
    with pytest.raises(Interrupted):
        stop.sleep(PATIENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="standby is for containers")
def test_standby_notices_a_signal_just_before_its_wait(
    stop: Stop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from app.commands import standby

    signal_before_each_wait(monkeypatch)
    monkeypatch.setattr(standby, "_runs", lambda: iter(()))  # those of this machine are others' affair
    assert standby.standby(configured(tmp_path), stop) == 0


def test_a_signal_raises_only_in_a_block_that_is_interruptible_by_it(stop: Stop) -> None:
    os.kill(os.getpid(), SIGTERM)
    with stop.interruptible(SECOND):
        stop.check(SECOND)
    with pytest.raises(Interrupted), stop.interruptible(FIRST):
        pytest.fail("the block began")
    with pytest.raises(Interrupted), stop.interruptible(SECOND):
        os.kill(os.getpid(), SIGINT)
        pytest.fail("the block went on")
    os.kill(os.getpid(), SIGTERM)  # outside of any block
    assert stop.signum == SIGTERM


def test_a_signal_does_not_interrupt_what_the_first_one_has_called(stop: Stop) -> None:
    done = []

    def announce(_: int) -> None:
        os.kill(os.getpid(), SIGTERM)
        done.append("all of it")

    stop.on_first = announce
    with stop.interruptible(SECOND), suppress(Interrupted):
        os.kill(os.getpid(), SIGTERM)
    assert done == ["all of it"]
