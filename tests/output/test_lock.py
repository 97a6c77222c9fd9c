"""One run at a time on a volume; and the record there of what a kill would hide, whatever becomes of it."""

import fcntl
import json
import shutil
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from app.model import Moment
from app.output.record import Record
from app.output.volume import Volume
from app.signals import Stop
from app.simulator import Simulator
from tests.output.volumes import PLAIN, ROW, clean_up, instant, kill_after, launcher, leave, only, sabotaged
from tests.promise import holds
from tests.support import HEADER_LINE, PATIENCE, QUICK, Jobs, Run, Simulate, expired, files_in, ids, ids_in

HOUR = timedelta(hours=1)


def write_record(volume: Path, stem: str, **changes: Any) -> Record:
    """Write into the lock file what the killed run of that name knew: a call that began just now."""
    now = Moment.now()
    record = Record(f"{stem}.csv", now, True, now, 1)._replace(**changes)
    (volume / ".lock").write_bytes(record.to_line())
    return record


def ago(hours: float, boot: str | None = None) -> Moment:
    """A reading of the clocks so many hours ago."""
    now = Moment.now()
    return Moment(now.wall - hours * HOUR, now.monotonic - hours * 3600, boot or now.boot)


def test_a_second_run_on_a_volume_ends_with_try_later_and_changes_nothing(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    first = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    before = files_in(volume)
    (name,) = before
    assert name.endswith(".csv.partial")
    assert len(ids(before[name])) == 100
    second = run(simulator, OUTPUT_DIR=str(volume))
    assert second.code == 75
    assert str(volume) in second.message
    assert files_in(volume) == before
    assert simulator.token_requests == 1
    simulator.release.set()
    assert jobs.finish(first).code == 0
    assert ids_in(volume) == sorted(expired(simulator))


def test_a_second_run_ends_with_try_later_also_where_the_lock_file_was_removed(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    first = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    (volume / ".lock").unlink()
    before = files_in(volume)
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 75
    assert files_in(volume) == before
    assert simulator.token_requests == 1
    simulator.release.set()
    assert jobs.finish(first).code == 0
    assert ids_in(volume) == sorted(expired(simulator))


LOCKED_AT_FIRST = (
    "import fcntl\nreal, failures = fcntl.flock, [1, 2, 3]\n"
    "def flock(descriptor, operation):\n"
    "    if failures and failures.pop():\n"
    "        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
    "    real(descriptor, operation)\n"
    "fcntl.flock = flock\n"
)


def test_a_run_that_begins_while_a_recovery_holds_the_lock_waits_for_it(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path
) -> None:
    settings = {**simulate().settings(), **QUICK, "OUTPUT_DIR": str(volume)}
    assert jobs.run(settings | sabotaged(tmp_path, LOCKED_AT_FIRST)).code == 0


def test_a_run_that_cannot_get_the_lock_does_not_say_that_another_run_is_under_way(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    leave(volume, 0, HEADER_LINE)
    simulator = simulate()
    with (volume / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(simulator, OUTPUT_DIR=str(volume))
    assert (result.code, simulator.token_requests) == (75, 0)
    assert "A recovery, or the beginning or end of another run, is under way on OUTPUT_DIR" in result.message


def test_a_run_killed_between_two_calls_has_lost_nothing_and_raises_no_alarm(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "503:3600"])
    kill_after("retry", simulator, jobs, volume, MAX_WAIT="3600")
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert (result.code, result.summary["lost"]) == (0, [])
    assert "nothing is missing" in result.events("killed_run")[0]["message"]
    assert result.events("earlier_call") == []
    assert ids_in(volume) == sorted(expired(simulator))


def test_a_run_killed_before_its_first_call_has_lost_nothing(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(token_faults=["503:3600"])
    kill_after("retry", simulator, jobs, volume, MAX_WAIT="3600")
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0


def test_the_call_of_a_killed_run_is_let_end_before_the_next_one_begins(
    simulate: Simulate, jobs: Jobs, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go_on = Event(), Event()

    def work(_: float) -> None:
        at_work.set()
        go_on.wait()

    monkeypatch.setattr("app.simulator.server.time", SimpleNamespace(sleep=work))
    simulator = simulate(latency=1)  # Proctor has chosen the exams, and changes them when it may go on
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)}
    killed = jobs.start({**settings, "READ_TIMEOUT": "14", "CONNECT_TIMEOUT": "1"})
    assert at_work.wait(PATIENCE)
    killed.kill()
    jobs.finish(killed)
    following = jobs.start(settings, bufsize=0)
    wait = jobs.read_until(following, "earlier_call")["seconds"]
    go_on.set()
    result = jobs.finish(following)
    simulator.wait_idle()

    assert 0 < wait <= 15
    assert result.code == 65
    first, *others = simulator.record
    assert instant(first["end"]) <= min(instant(call["start"]) for call in others)
    assert len(set(expired(simulator))) == len(expired(simulator)) == 250
    (window,) = result.summary["lost"]
    assert holds(window, first["start"])
    assert holds(window, first["changed"])
    assert ids_in(volume) == sorted(set(expired(simulator)) - set(first["expired"]))


def interrupted_wait(simulator: Simulator, jobs: Jobs, volume: Path, signum: int, **settings: str) -> float:
    """Start a run and end it as soon as it waits for an earlier call; returns for how long it would have waited."""
    process = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), **settings}, bufsize=0)
    seconds = jobs.read_until(process, "earlier_call")["seconds"]
    process.send_signal(signum)
    jobs.finish(process)
    return float(seconds)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_ends_while_it_waits_leaves_the_wait_to_the_next_one(
    simulate: Simulate, jobs: Jobs, volume: Path, signum: int
) -> None:
    simulator = simulate()
    write_record(volume, leave(volume, 0, HEADER_LINE + PLAIN), longest_call=3600)
    waits = [interrupted_wait(simulator, jobs, volume, signum, READ_TIMEOUT="1") for _ in range(3)]
    assert all(3600 - PATIENCE < wait <= 3600 for wait in waits)
    assert waits == sorted(waits, reverse=True)
    assert simulator.record == []


@pytest.mark.parametrize("removed", [True, False])
def test_the_call_of_a_killed_run_whose_record_is_gone_is_waited_for(
    simulate: Simulate, jobs: Jobs, volume: Path, removed: bool
) -> None:
    simulator = simulate(faults=["hold"])
    killed = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    killed.kill()
    jobs.finish(killed)
    (volume / ".lock").write_bytes(b"")
    if removed:
        (volume / ".lock").unlink()
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGTERM)
    waits = [interrupted_wait(simulator, jobs, volume, signum, READ_TIMEOUT="3600") for signum in signals]
    assert all(3610 - PATIENCE < wait <= 3610 for wait in waits)
    assert len(simulator.record) <= 1


@pytest.mark.parametrize("longest", [3600.0, 7200.0])
def test_the_read_timeout_of_the_killed_run_counts(
    simulate: Simulate, jobs: Jobs, volume: Path, longest: float
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    record = write_record(volume, stem, longest_call=longest)
    wait = interrupted_wait(simulate(), jobs, volume, signal.SIGTERM, READ_TIMEOUT="1")
    assert longest - PATIENCE < wait <= longest
    (window,) = json.loads((volume / f"{stem}.json").read_bytes())["lost"]
    assert instant(window["end"]) - record.since.wall >= timedelta(seconds=longest)


def test_the_time_to_connect_counts(simulate: Simulate, jobs: Jobs, volume: Path) -> None:
    simulator = simulate(faults=["hold"])
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "READ_TIMEOUT": "1"}
    killed = jobs.start({**settings, "CONNECT_TIMEOUT": "3600"})
    assert simulator.held.wait(PATIENCE)
    killed.kill()
    jobs.finish(killed)
    assert interrupted_wait(simulator, jobs, volume, signal.SIGTERM) > 3600 - PATIENCE
    for summary in volume.glob("*.json"):
        (window,) = json.loads(summary.read_bytes())["lost"]
        assert instant(window["end"]) >= instant(window["start"]) + HOUR


def test_the_wait_after_a_loss_in_an_ended_run_is_left_to_the_next_one(
    simulate: Simulate, jobs: Jobs, volume: Path
) -> None:
    simulator = simulate(faults=["cut-body"])
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "MAX_LOST_RESPONSES": "0"}
    ended = jobs.run({**settings, "READ_TIMEOUT": "3600"})
    assert ended.code == 65
    assert interrupted_wait(simulator, jobs, volume, signal.SIGTERM) > 3600 - PATIENCE


def test_a_lost_call_is_waited_for_also_where_its_retry_was_rejected(
    simulate: Simulate, jobs: Jobs, volume: Path
) -> None:
    simulator = simulate(faults=["cut-body", "503", "503"])
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "MAX_ATTEMPTS": "3"}
    ended = jobs.run({**settings, "READ_TIMEOUT": "3600"})
    assert (ended.code, len(simulator.record)) == (65, 3)
    assert interrupted_wait(simulator, jobs, volume, signal.SIGTERM) > 3600 - PATIENCE


def test_after_a_call_that_took_too_long_the_next_run_waits_for_as_long_again(volume: Path) -> None:
    with closing(Volume(volume, 3600)) as held:
        report = held.report("SBAC_PT", Stop())
        report.open()
        report.call_begins(ago(1))
        report.response_lost(at_work=True)
        report._file.close()  # all that a kill does
    with closing(Volume(volume, 3600)) as held:
        assert 3600 - PATIENCE < held.clean_up().seconds_at_work <= 3600


def test_a_call_that_began_as_long_ago_as_one_can_last_is_not_waited_for(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    record = write_record(volume, stem, since=ago(0.5), last_call=ago(0.25), longest_call=60)
    result = run(simulate(), OUTPUT_DIR=str(volume))
    assert (result.code, result.events("earlier_call")) == (65, [])
    (window,) = result.summary["lost"]
    assert record.last_call
    assert instant(window["start"]) <= record.since.wall
    assert record.last_call.wall + timedelta(seconds=60) <= instant(window["end"]) < datetime.now(UTC)


def test_the_window_of_a_run_killed_between_two_calls_holds_every_response_that_it_had_lost(volume: Path) -> None:
    first, last, good = ago(3), ago(2), ago(1)
    with closing(Volume(volume, 60)) as held:
        report = held.report("SBAC_PT", Stop())
        report.open()
        for began in (first, last):
            report.call_begins(began)
            report.response_lost(at_work=True)
        report.call_begins(good)
        report.write([ROW])
        report._file.close()  # all that a kill does
    with closing(Volume(volume, 60)) as held:
        (window,), wait = held.clean_up()
    assert window.start <= first.wall
    assert last.wall + timedelta(seconds=60) <= window.end < good.wall
    assert wait == 0


def test_a_record_of_another_boot_widens_the_window_also_where_all_was_reported(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    since = ago(2, boot="another")
    write_record(volume, stem, since=since, unreported=False, last_call=None)
    before = datetime.now(UTC)
    result = run(simulate(), OUTPUT_DIR=str(volume))
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert instant(window["start"]) <= since.wall
    assert instant(window["end"]) >= before


def test_after_a_reboot_with_the_clock_set_back_the_window_holds_the_last_call(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    since, last = ago(1, boot="another"), ago(-3, boot="another")
    write_record(volume, stem, since=since, last_call=last, longest_call=0.1)
    (window,) = run(simulate(), OUTPUT_DIR=str(volume)).summary["lost"]
    assert instant(window["start"]) <= since.wall
    assert last.wall <= instant(window["end"])


def test_after_a_reboot_a_call_in_the_future_is_waited_for_as_if_it_began_now(
    simulate: Simulate, jobs: Jobs, volume: Path
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    future = ago(-5, boot="another")
    write_record(volume, stem, since=future, last_call=future, longest_call=3600)
    assert interrupted_wait(simulate(), jobs, volume, signal.SIGTERM) == 3600
    (window,) = json.loads((volume / f"{stem}.json").read_bytes())["lost"]
    assert instant(window["start"]) <= datetime.now(UTC) - 4 * HOUR
    assert instant(window["end"]) >= future.wall


def test_a_wait_that_is_over_is_not_repeated_by_the_next_run(simulate: Simulate, run: Run, volume: Path) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    future = ago(-5, boot="another")
    write_record(volume, stem, since=future, last_call=future, longest_call=1)
    simulator = simulate(faults=["403"])
    waited, following = (run(simulator, OUTPUT_DIR=str(volume)) for _ in range(2))
    assert (waited.code, len(waited.events("earlier_call"))) == (77, 1)
    assert (following.code, following.events("earlier_call")) == (0, [])


def lines() -> list[bytes]:
    """What may stand in a lock file that no run wrote, or not completely."""
    now = Moment.now()
    good = json.loads(Record("x", now, True, None, 1).to_line())
    wrong: list[dict[str, Any]] = [
        {"since": ["0001-01-01T00:00:00+14:00", 0, ""]},
        {"since": ["9999-12-31T23:59:59-14:00", 0, ""]},
        {"since": ["9999-12-31T23:59:59Z", 0, now.boot]},
        {"since": ["9999-01-01T00:00:00Z", 0, ""]},
        {"last_call": ["9999-01-01T00:00:00Z", 0, ""]},
        {"since": ["now", 0, ""]},
        {"since": ["2026-04-01T00:00:00Z", float("nan"), now.boot]},
        {"since": ["2026-04-01T00:00:00Z", -1e300, now.boot]},
        {"longest_call": float("nan")},
        {"longest_call": float("inf")},
        {"longest_call": 1e300},
        {"longest_call": -1},
        {"since": []},
        {"since": None},
        {"longest_call": "long"},
        {"last_call": 7},
    ]
    return [b"", b"\xff", b"{}", b"[]", b"[" * 5000, b"\0" * 4096, *(json.dumps(good | x).encode() for x in wrong)]


@pytest.mark.parametrize("line", lines())
def test_a_record_that_makes_no_sense_only_widens_the_window(
    simulate: Simulate, jobs: Jobs, volume: Path, line: bytes
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    (volume / ".lock").write_bytes(line.replace(b'"x"', json.dumps(f"{stem}.csv").encode()) + b"\n")
    result = clean_up(simulate(), jobs, volume)
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert instant(window["start"]) <= datetime.strptime(stem[-16:], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def test_the_record_of_another_run_does_not_narrow_the_window(simulate: Simulate, jobs: Jobs, volume: Path) -> None:
    assert clean_up(simulate(), jobs, volume).code == 0
    leave(volume, 0, HEADER_LINE + PLAIN)
    (window,) = clean_up(simulate(), jobs, volume).summary["lost"]
    assert window["start"] == "2026-04-01T00:00:00.000Z"


def test_history_distinguishes_a_run_under_way_from_a_killed_one(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 0
    simulator = simulate(faults=["hold"])
    process = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    (volume / ".lock").unlink()
    name = only(volume, ".partial").name
    under_way = jobs.run({}, "history", str(volume))
    process.kill()
    jobs.finish(process)
    killed = jobs.run({}, "history", str(volume))
    assert (under_way.code, killed.code) == (0, 1)
    assert f"{name} belongs to a run that is under way." in under_way.stdout.decode()
    assert f"{name} belongs to a run that was killed, or could not write its summary." in killed.stdout.decode()


NFS = (
    "import fcntl\nreal = fcntl.flock\n"
    "def flock(descriptor, operation):\n"
    "    reads_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY\n"
    "    if reads_only and operation & fcntl.LOCK_EX:\n"
    "        raise OSError(errno.EBADF, os.strerror(errno.EBADF))\n"
    "    real(descriptor, operation)\n"
    "fcntl.flock = flock\n"
)


def test_history_distinguishes_them_also_where_what_is_open_for_reading_cannot_be_locked_for_oneself(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path
) -> None:
    simulator = simulate(faults=["hold"])
    process = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    under_way = jobs.run(sabotaged(tmp_path, NFS), "history", str(volume))
    process.kill()
    jobs.finish(process)
    killed = jobs.run(sabotaged(tmp_path, NFS), "history", str(volume))
    assert b"belongs to a run that is under way." in under_way.stdout
    assert b"belongs to a run that was killed" in killed.stdout


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("setpriv"), reason="needs setpriv")
def test_history_distinguishes_them_also_for_a_user_who_may_only_read(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path
) -> None:
    simulator = simulate(faults=["hold"])
    process = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    only(volume, ".partial").chmod(0o444)
    shell = launcher(jobs.directory, 'exec setpriv --bounding-set=-dac_override "$@"')
    assert b"belongs to a run that is under way." in jobs.run({}, "history", str(volume), executable=shell).stdout
    over_nfs = jobs.run(sabotaged(tmp_path, NFS), "history", str(volume), executable=shell)
    assert b"belongs to a run that is under way." in over_nfs.stdout
    process.kill()


PROBES = (
    "import fcntl\nreal, probes = fcntl.flock, [1, 2, 3]\n"
    "def flock(descriptor, operation):\n"
    "    name = os.readlink(f'/proc/self/fd/{descriptor}')\n"
    "    if name.endswith('.partial') and operation & fcntl.LOCK_EX and probes and probes.pop():\n"
    "        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
    "    real(descriptor, operation)\n"
    "fcntl.flock = flock\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_somebody_who_looks_whether_a_file_is_locked_does_not_disturb_a_run_or_its_clean_up(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path
) -> None:
    simulator = simulate(faults=["hold"])
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)} | sabotaged(tmp_path, PROBES)
    process = jobs.start({**settings, "READ_TIMEOUT": "2", "CONNECT_TIMEOUT": "1"})
    assert simulator.held.wait(PATIENCE)
    assert b"belongs to a run that is under way." in jobs.run({}, "history", str(volume)).stdout
    process.kill()
    jobs.finish(process)
    simulator.release.set()
    assert jobs.run(settings).code == 65
