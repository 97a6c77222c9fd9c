"""The CSV: proven writable before anything is expired, no row lost or doubled, whole after every end of a run."""

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import pytest

from app.commands.run import open_report
from app.exceptions import OutputFailed
from app.output.csv_report import Report
from app.output.volume import VolumeReport
from app.proctor.endpoint import Exam
from app.signals import Stop
from app.simulator import Simulator
from tests.support import HEADER, PATIENCE, QUICK, Jobs, Result, Run, Simulate, delivered, expired, rows_of
from tests.test_properties import configured

HEADER_LINE = ",".join(HEADER).encode() + b"\r\n"
FAR_OFF = b'{"lost": [{"start": "0001-01-01T00:00:00+10:00", "end": "2026-04-01T02:00:00Z", "reason": "?"}]}'
PLAIN = b"(SBAC_PT)SBAC-Perf-ELA-4,SBAC-Perf-ELA-4,0000002a-5bac-4000-8000-000000000001,100001,expired\r\n"
QUOTED = b'"a ""quoted"", k\xc3\xa9y\r\n\r\nover lines\r",,0000002a-5bac-4000-8000-000000000002,100002,"x,\r\n"\r\n'


@pytest.fixture
def small_disk(volume: Path) -> Iterator[Path]:
    """A file system of four pages."""
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(volume)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs")
    yield volume
    subprocess.run(["umount", str(volume)], check=True)


def launcher(directory: Path, line: str) -> Path:
    """As Popen's `executable`: a shell that runs `line`, in which "$@" is the job."""
    script = directory / "launcher"
    script.write_text(f'#!/bin/sh\nset -- "{sys.executable}" "$@"\n{line}\n')
    script.chmod(0o755)
    return script


def content(volume: Path) -> dict[str, bytes]:
    """The files of a volume but the lock."""
    return {path.name: path.read_bytes() for path in volume.iterdir() if path.name != ".lock"}


def only(volume: Path, suffix: str) -> Path:
    (path,) = volume.glob(f"expired_exams_*{suffix}")
    return path


def unwritten(result: Result) -> list[str]:
    """The ids in the rows that went to the log instead of the CSV."""
    rows = [event["row"] for event in result.events("unwritten_row")]
    return [row["examId"] for row in rows_of(HEADER_LINE + "".join(f"{row}\r\n" for row in rows).encode())]


def ids(csv: bytes) -> list[str]:
    return [row["examId"] for row in rows_of(csv)]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_the_csv_is_rfc_4180_in_utf_8_under_its_header(simulate: Simulate, run: Run) -> None:
    lines = run(simulate(exams=5, faults=["odd-records"])).stdout
    assert lines.startswith(HEADER_LINE)
    assert (
        b"(SBAC_PT)SBAC-Perf-ELA-7-Spring-2017-2018,SBAC-Perf-ELA-7,00000001-5bac-4000-8000-000000000004,100004,expired"
        b"\r\n" in lines
    )
    assert (
        b'"a ""quoted"", key\r\nover two lines",=1+1\\ud800,00000000-0000-4000-8000-000000000002,'
        b"123456789012345678901234567890,paused\r\n" in lines
    )
    assert "SBAC-Perf-\N{REPLACEMENT CHARACTER}LA-3".encode() in run(simulate(exams=5, faults=["not-utf8"])).stdout


def test_the_header_alone_says_that_nothing_was_overdue(simulate: Simulate, run: Run, volume: Path) -> None:
    assert run(simulate(exams=0)).stdout == HEADER_LINE
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert (result.code, result.stdout) == (0, b"")
    assert only(volume, ".csv").read_bytes() == HEADER_LINE


def nothing_is_expired(simulator: Simulator, result: Result) -> bool:
    return result.code == 74 and not simulator.token_requests and not simulator.record


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_stdout_that_cannot_be_written_stops_the_run_before_the_token(
    simulate: Simulate, jobs: Jobs, redirection: str
) -> None:
    simulator = simulate()
    shell = launcher(jobs.directory, f'exec "$@" {redirection}')
    assert nothing_is_expired(simulator, jobs.run({**simulator.settings(), **QUICK}, executable=shell))


def test_a_pipe_that_nobody_reads_any_more_stops_the_run_before_the_token(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        assert nothing_is_expired(simulator, jobs.run({**simulator.settings(), **QUICK}, stdout=stdout))


@pytest.mark.parametrize("name", ["missing", "a file", "a file/below"])
def test_an_output_dir_that_is_none_stops_the_run_before_the_token(
    simulate: Simulate, run: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a file").touch()
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(tmp_path / name))
    assert nothing_is_expired(simulator, result)
    assert str(tmp_path / name) in result.message


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_an_output_dir_that_may_not_be_written_stops_the_run_and_the_message_names_the_user(
    simulate: Simulate, jobs: Jobs, volume: Path
) -> None:
    simulator = simulate()
    volume.chmod(0o555)
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write anywhere")
    obedient = "" if os.geteuid() else "setpriv --bounding-set=-dac_override"
    shell = launcher(jobs.directory, f'exec {obedient} "$@"')
    result = jobs.run({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)}, executable=shell)
    assert nothing_is_expired(simulator, result)
    assert f"as user {os.geteuid()}" in result.message
    assert list(volume.iterdir()) == []


def test_a_volume_that_is_full_stops_the_run_before_the_token_and_is_left_as_it_was(
    simulate: Simulate, run: Run, small_disk: Path
) -> None:
    simulator = simulate(exams=0)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 16 * 1024)
    assert nothing_is_expired(simulator, run(simulator, OUTPUT_DIR=str(small_disk)))
    filler.unlink()
    assert content(small_disk) == {}
    assert run(simulator, OUTPUT_DIR=str(small_disk)).events("killed_run") == []


@pytest.mark.parametrize("room", [0, 10])
def test_what_stands_in_a_file_that_is_appended_to_stays_there(
    simulate: Simulate, jobs: Jobs, tmp_path: Path, room: int
) -> None:
    simulator = simulate()
    csv = tmp_path / "all.csv"
    csv.write_bytes(b"x" * (512 - room))
    shell = launcher(jobs.directory, f'ulimit -f 1; exec "$@" >>{csv}')
    assert nothing_is_expired(simulator, jobs.run({**simulator.settings(), **QUICK}, executable=shell))
    assert csv.read_bytes() == b"x" * (512 - room)


def test_a_file_that_is_appended_to_keeps_its_rows(simulate: Simulate, jobs: Jobs, tmp_path: Path) -> None:
    csv = tmp_path / "all.csv"
    shell = launcher(jobs.directory, f'exec "$@" >>{csv}')
    for seed in 1, 2:
        jobs.run({**simulate(exams=10, seed=seed).settings(), **QUICK}, executable=shell)
    first, second = csv.read_bytes().split(HEADER_LINE)[1:]
    assert len(rows_of(HEADER_LINE + first)) == len(rows_of(HEADER_LINE + second)) == 10


def each_exam_is_in_the_csv_or_in_the_log(simulator: Simulator, result: Result, csv: bytes) -> bool:
    missing = unwritten(result)
    assert missing
    assert result.code == 74
    assert result.summary["outcome"] == "failed"
    assert len(simulator.record) == 2  # no further call
    (window,) = result.summary["lost"]  # the log may be lost as well
    assert instant(window["start"]) <= instant(simulator.record[1]["changed"]) <= instant(window["end"])
    assert f"missing in it: {len(missing)}" in result.message
    return sorted(ids(csv) + missing) == sorted(delivered(simulator)) == sorted(expired(simulator))


FULL_AFTER_12_KIB = 'ulimit -f 24; exec "$@"'


def test_rows_for_which_a_file_has_no_room_go_to_the_log(simulate: Simulate, jobs: Jobs, tmp_path: Path) -> None:
    simulator, csv = simulate(), tmp_path / "exams.csv"
    shell = launcher(jobs.directory, f"{FULL_AFTER_12_KIB} >{csv}")
    result = jobs.run({**simulator.settings(), **QUICK}, executable=shell)
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, csv.read_bytes())


def test_rows_for_which_a_volume_has_no_room_go_to_the_log(simulate: Simulate, jobs: Jobs, volume: Path) -> None:
    simulator = simulate()
    shell = launcher(jobs.directory, FULL_AFTER_12_KIB)
    result = jobs.run({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)}, executable=shell)
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, only(volume, ".csv").read_bytes())
    assert json.loads(only(volume, ".json").read_bytes()) == result.summary
    assert len(content(volume)) == 2


def test_a_disk_without_room_even_for_the_summary_leaves_it_to_the_next_run_to_name_what_is_missing(
    simulate: Simulate, run: Run, small_disk: Path
) -> None:
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(small_disk))
    partial = only(small_disk, ".partial")
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, partial.read_bytes())
    assert set(content(small_disk)) == {partial.name}
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    following = run(simulator, OUTPUT_DIR=str(small_disk))
    assert following.code == 65
    (window,) = following.summary["lost"]
    assert instant(window["start"]) <= instant(simulator.record[1]["changed"]) <= instant(window["end"])
    assert json.loads(partial.with_suffix("").with_suffix(".json").read_bytes())["lost"] == [window]


def test_rows_that_a_reader_no_longer_takes_go_to_the_log(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = jobs.start({**simulator.settings(), **QUICK})
    assert simulator.held.wait(PATIENCE)
    assert process.stdout
    csv = b"".join(process.stdout.readline() for _ in range(101))
    process.stdout.close()
    simulator.release.set()
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, jobs.finish(process), csv)


def test_a_file_that_never_had_a_name_takes_the_rows(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate()
    with TemporaryFile() as nameless:
        assert jobs.run({**simulator.settings(), **QUICK}, stdout=nameless).code == 0
        nameless.seek(0)
        assert sorted(ids(nameless.read())) == sorted(expired(simulator))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows that a report in this process sends to the log."""
    rows: list[str] = []
    monkeypatch.setattr("app.output.csv_report.event", lambda *_, row: rows.append(row))
    return rows


@contextmanager
def small_pipe(stop: Stop) -> Iterator[tuple[Report, BinaryIO]]:
    """A report on a pipe that holds a page, its header read, and the pipe's other end."""
    fcntl = pytest.importorskip("fcntl")
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        pytest.skip("needs a pipe of a size of its own")
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stdout, open(writer, "wb", buffering=0):
        os.set_blocking(writer, False)  # a write that should have waited fails instead of hanging
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        report = Report(writer, "a pipe", stop)
        assert stdout.read(4096) == HEADER_LINE
        yield report, stdout


ROW = Exam("k" * 48, "i", "e", "7", "expired")  # 64 bytes: 64 such rows fill a page


@pytest.mark.parametrize("longer", [0, 1])
def test_a_row_is_either_whole_in_the_pipe_or_in_the_log(logged: list[str], longer: int) -> None:
    stop = Stop()
    with small_pipe(stop) as (report, stdout):
        for _ in range(2):
            stop._receive(15, None)
        with pytest.raises(OutputFailed):
            report.write([ROW._replace(examId="e" * (1 + longer)), *[ROW] * 99])
        assert stdout.read(8192).count(b"\r\n") == 64 - longer
    assert logged == [",".join(ROW)] * (36 + longer)


def test_one_signal_does_not_give_up_a_reader_that_takes_its_time(logged: list[str]) -> None:
    stop = Stop()
    with small_pipe(stop) as (report, stdout), ThreadPoolExecutor() as pool:
        stop._receive(15, None)
        written = pool.submit(report.write, [ROW] * 100)
        wait([written], 0.1)
        assert stdout.read(8192).count(b"\r\n") == 64
        written.result(PATIENCE)
        assert stdout.read(8192).count(b"\r\n") == 36
    assert logged == []


def test_rows_that_cannot_be_taken_back_are_not_in_the_log_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, logged: list[str]
) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open(tmp_path / "csv", "wb", buffering=0) as file:
        report = Report(file.fileno(), "a file", Stop())
        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(os, "ftruncate", fail)
        with pytest.raises(OutputFailed):
            report.write([ROW])
    assert len(rows_of((tmp_path / "csv").read_bytes())) == 1
    assert logged == []


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot force a directory to disk")
def test_what_is_written_is_forced_to_disk_before_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, volume: Path
) -> None:
    names: set[str] = set()
    sizes: dict[int, int] = {}

    def fsync(file: int) -> None:
        status = os.fstat(file)
        if stat.S_ISDIR(status.st_mode):
            names.update(path.name for path in volume.iterdir())
        else:
            sizes[status.st_ino] = status.st_size

    def safe(path: Path) -> bool:
        return path.name in names and sizes.get(path.stat().st_ino) == path.stat().st_size

    monkeypatch.setattr(os, "fsync", fsync)
    killed = leave(volume, 0, HEADER_LINE + PLAIN + PLAIN[:9])
    report = open_report(configured(volume), Stop(), [])
    assert safe(volume / f"{killed}.csv")
    assert safe(volume / f"{killed}.json")
    assert safe(only(volume, ".partial"))
    report.write([Exam("k", "i", "e", "7", "expired")])
    assert safe(only(volume, ".partial"))
    report.finish({})
    assert all(safe(path) for path in volume.glob("expired_exams_*"))


def test_a_volume_whose_files_are_removed_stops_the_run_and_the_log_gets_the_rows(
    simulate: Simulate, jobs: Jobs, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    process = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    shutil.rmtree(volume)
    simulator.release.set()
    result = jobs.finish(process)
    assert result.code == 74
    assert sorted(unwritten(result)) == sorted(simulator.record[1]["expired"])
    assert "was removed" in result.message
    assert len(simulator.record) == 2


def test_a_summary_that_cannot_be_written_is_a_failure_and_the_csv_gets_its_name(
    simulate: Simulate, jobs: Jobs, volume: Path
) -> None:
    simulator = simulate(faults=["hold"])
    process = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    csv = only(volume, ".partial").with_suffix("")
    csv.with_suffix(".json").mkdir()
    simulator.release.set()
    result = jobs.finish(process)
    assert (result.code, result.summary["outcome"]) == (74, "failed")
    assert csv.with_suffix(".json").name in result.message
    assert sorted(ids(csv.read_bytes())) == sorted(expired(simulator))
    assert {path.name for path in volume.iterdir()} == {".lock", csv.name, csv.with_suffix(".json").name}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that cannot be written")
def test_a_mark_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch, volume: Path) -> None:
    report = VolumeReport(volume, configured(volume), Stop(), [])
    with closing(report._lock._file), open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(report._lock, "_file", full)
        report.write([ROW])
        report.finish({})
    assert len(ids(only(volume, ".csv").read_bytes())) == 1


def test_a_volume_gets_a_csv_and_its_summary_for_nobody_else_to_read(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert (result.code, result.stdout) == (0, b"")
    csv = only(volume, ".csv")
    assert re.fullmatch(r"expired_exams_SBAC_PT_\d{8}T\d{6}Z\.csv", csv.name)
    assert set(content(volume)) == {csv.name, csv.stem + ".json"}
    assert sorted(ids(csv.read_bytes())) == sorted(expired(simulator))
    assert json.loads(csv.with_suffix(".json").read_bytes()) == result.summary
    assert [path.name for path in volume.iterdir() if path.stat().st_mode & 0o007] == []


@pytest.mark.parametrize(
    ("client_name", "stem"), [("a&..\\b c.d%", "a_b_c_d_"), ("\u00e9t\u00e9", "_t_"), ("x" * 300, "x" * 64)]
)
def test_any_client_name_makes_a_name_of_a_file(
    simulate: Simulate, run: Run, volume: Path, client_name: str, stem: str
) -> None:
    simulator = simulate(exams=10, client_name=client_name)
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0
    csv = only(volume, ".csv")
    assert re.fullmatch(rf"expired_exams_{stem}_\d{{8}}T\d{{6}}Z\.csv", csv.name)
    assert sorted(ids(csv.read_bytes())) == sorted(expired(simulator))


def test_runs_that_begin_in_the_same_second_do_not_overwrite_each_other(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    taken = {
        f"expired_exams_SBAC_PT_{datetime.now(UTC) + timedelta(seconds=second):%Y%m%dT%H%M%SZ}.csv": b"taken"
        for second in range(PATIENCE)
    }
    for name, text in taken.items():
        (volume / name).write_bytes(text)
    assert run(simulate(exams=10), OUTPUT_DIR=str(volume)).code == 0
    new = {name: text for name, text in content(volume).items() if name not in taken}
    assert [name[-6:] for name in sorted(new)] == ["_2.csv", "2.json"]
    assert taken.items() <= content(volume).items()


def test_a_second_run_on_a_volume_comes_later_and_changes_nothing(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    first = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    before = content(volume)
    (name,) = before
    assert name.endswith(".csv.partial")
    assert len(ids(before[name])) == 100
    second = run(simulator, OUTPUT_DIR=str(volume))
    assert second.code == 75
    assert str(volume) in second.message
    assert content(volume) == before
    assert simulator.token_requests == 1
    simulator.release.set()
    assert jobs.finish(first).code == 0
    assert sorted(ids(only(volume, ".csv").read_bytes())) == sorted(expired(simulator))


def test_what_a_killed_run_leaves_is_brought_in_order_by_the_next_one(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    killed = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)})
    assert simulator.held.wait(PATIENCE)
    partial = only(volume, ".partial")
    killed.kill()
    jobs.finish(killed)
    simulator.release.set()
    result = run(simulator, OUTPUT_DIR=str(volume))

    assert result.code == 65
    csv = partial.with_suffix("")
    held = next(call for call in simulator.record if call["fault"] == "hold")
    others = [exam for call in simulator.record if call is not held for exam in call["expired"]]
    assert sorted(ids(csv.read_bytes())) == sorted(simulator.record[0]["expired"])
    assert sorted(exam for path in volume.glob("*.csv") for exam in ids(path.read_bytes())) == sorted(others)
    summary = json.loads(csv.with_suffix(".json").read_bytes())
    assert summary["outcome"] == "killed"
    assert (summary["client_name"], summary["message"]) == ("SBAC_PT", result.events("killed_run")[0]["message"])
    assert (summary["calls"], summary["retries"], summary["version"]) == (None, None, None)
    assert summary["exams"]["expired"] + summary["exams"]["completed"] == 100
    (window,) = summary["lost"]
    assert instant(simulator.record[0]["changed"]) <= instant(window["start"]) <= instant(held["start"])
    assert instant(held["changed"]) <= instant(window["end"])
    assert not list(volume.glob("*.partial"))
    assert result.events("killed_run")[0]["csv"] == csv.name


def leave(volume: Path, number: int, text: bytes) -> str:
    """Put a file there as a killed run leaves it; return the name without suffix."""
    stem = f"expired_exams_SBAC_PT_20260401T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z"
    (volume / f"{stem}.csv.partial").write_bytes(text)
    return stem


def test_the_window_of_a_killed_run_has_the_answers_in_it_that_it_had_lost(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(exams=450, faults=["ok", "500-after", "ok", "hold"])
    killed = jobs.start({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "TZ": "Asia/Kolkata"})
    assert simulator.held.wait(PATIENCE)
    killed.kill()
    jobs.finish(killed)
    simulator.release.set()
    result = run(simulator, OUTPUT_DIR=str(volume))
    first, lost, _, held, *_ = simulator.record
    (window,) = result.summary["lost"]
    assert instant(first["changed"]) <= instant(window["start"]) <= instant(lost["start"])
    assert instant(held["changed"]) + timedelta(seconds=float(QUICK["READ_TIMEOUT"])) <= instant(window["end"])


def test_the_mark_of_another_run_does_not_narrow_the_window(simulate: Simulate, run: Run, volume: Path) -> None:
    assert run(simulate(), OUTPUT_DIR=str(volume)).code == 0
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    result = run(simulate(), OUTPUT_DIR=str(volume))
    (window,) = result.summary["lost"]
    assert window["start"] == "2026-04-01T00:00:00.000Z"
    summary = json.loads((volume / f"{stem}.json").read_bytes())
    assert (summary["started"], summary["lost"]) == (window["start"], [window])


def test_files_that_no_run_has_left_stay_as_they_are(simulate: Simulate, run: Run, volume: Path) -> None:
    others = {f"expired_exams_{name}.csv.partial": b"?" for name in ("", "0", "SBAC_PT_20260231T000000Z", "zzz")}
    for name, text in others.items():
        (volume / name).write_bytes(text)
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 65
    assert others.items() <= content(volume).items()
    assert (volume / f"{stem}.csv").exists()


def test_what_killed_runs_lost_leaves_the_next_one_its_own_max_lost_responses(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    for number in range(3):
        leave(volume, number, HEADER_LINE)
    result = run(simulate(faults=["500-after"]), OUTPUT_DIR=str(volume), MAX_LOST_RESPONSES="1")
    assert (result.code, result.summary["outcome"]) == (65, "drained")
    assert len(result.summary["lost"]) == 4


@pytest.mark.parametrize(
    ("whole", "last"),
    [
        pytest.param(b"", HEADER_LINE, id="header"),
        pytest.param(HEADER_LINE, PLAIN, id="first"),
        pytest.param(HEADER_LINE, QUOTED, id="first-quoted"),
        pytest.param(HEADER_LINE + PLAIN + QUOTED, PLAIN, id="plain"),
        pytest.param(HEADER_LINE + QUOTED + PLAIN, QUOTED, id="quoted"),
    ],
)
def test_of_a_row_that_was_torn_at_any_byte_nothing_stays(
    simulate: Simulate, run: Run, volume: Path, whole: bytes, last: bytes
) -> None:
    stems = [leave(volume, end, whole + last[:end]) for end in range(len(last))]
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert result.code == 65
    cut = [event["message"].partition(" row: ")[2] for event in result.events("truncated_row")]
    assert cut == [repr(last[:end]) for end in range(1, len(last))]
    for stem in stems:
        assert (volume / f"{stem}.csv").read_bytes() == (whole or HEADER_LINE)
        summary = json.loads((volume / f"{stem}.json").read_bytes())
        assert summary["outcome"] == "killed"
        assert sum(summary["exams"].values()) == len(rows_of(whole or HEADER_LINE))
        assert summary["lost"][0]["start"].startswith("2026-04-01T")
    assert not list(volume.glob("*.partial"))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(QUOTED, id="quoted"),
        pytest.param(PLAIN.replace(b"expired", b"\xff"), id="not-utf8"),
        pytest.param(b"x" * 200_000 + PLAIN, id="long"),
        pytest.param(b'"' + b'""\r\n' * 50_000 + b'",,,,\r\n', id="many-lines"),
    ],
)
def test_a_whole_row_of_a_killed_run_stays_whatever_is_in_it(
    simulate: Simulate, run: Run, volume: Path, row: bytes
) -> None:
    stem = leave(volume, 0, HEADER_LINE + row)
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert (result.code, result.events("truncated_row")) == (65, [])
    assert (volume / f"{stem}.csv").read_bytes() == HEADER_LINE + row


def test_a_run_that_was_killed_after_its_summary_only_gets_its_final_name(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    (volume / f"{stem}.json").write_text('{"lost": []}')
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 0
    assert (volume / f"{stem}.csv").read_bytes() == HEADER_LINE + PLAIN
    assert (volume / f"{stem}.json").read_text() == '{"lost": []}'


def test_what_such_a_summary_names_as_lost_is_told_by_the_next_run(simulate: Simulate, run: Run, volume: Path) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    window = {"start": "2026-04-01T02:00:00.000Z", "end": "2026-04-01T02:05:00.000Z", "reason": "the run was killed"}
    (volume / f"{stem}.json").write_text(json.dumps({"lost": [window]}))
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert result.code == 65
    assert result.summary["lost"] == [window]
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 0


@pytest.mark.parametrize("summary", [b"", b"[]", b"{}", b'{"lost": [{"start": "soon"}]}', FAR_OFF, b"[" * 100_000])
def test_a_summary_that_cannot_be_read_is_made_anew(simulate: Simulate, run: Run, volume: Path, summary: bytes) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    (volume / f"{stem}.json").write_bytes(summary)
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert result.code == 65
    assert json.loads((volume / f"{stem}.json").read_bytes())["lost"] == result.summary["lost"] != []


@pytest.mark.parametrize(
    "mark",
    [b"\xff", b"0001-01-01T00:00:00+14:00 ", b"9999-12-31T23:59:59-14:00 ", b"9999-01-01T00:00:00Z "],
)
def test_a_mark_that_makes_no_sense_only_widens_the_window(
    simulate: Simulate, run: Run, volume: Path, mark: bytes
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    (volume / ".lock").write_bytes(mark + f"{stem}.csv\n".encode())
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert datetime.strptime(stem[-16:], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) == instant(window["start"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_on_the_volume_is_left_alone(simulate: Simulate, run: Run, volume: Path) -> None:
    os.mkfifo(volume / "expired_exams_SBAC_PT_20260401T020000Z.csv.partial")
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 0


def test_the_draft_of_a_summary_is_replaced(simulate: Simulate, run: Run, volume: Path) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    for name in (stem, stem.replace("2026", "2025")):
        (volume / f"{name}.json.tmp").write_bytes(b'{"vers')
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 65
    assert json.loads((volume / f"{stem}.json").read_bytes())["outcome"] == "killed"
    assert not list(volume.glob("*.tmp"))


def test_a_loss_that_is_found_is_told_also_by_a_run_that_then_cannot_begin(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    leave(volume, 0, HEADER_LINE + PLAIN)
    stem = leave(volume, 1, HEADER_LINE + PLAIN)
    (volume / f"{stem}.csv").write_bytes(HEADER_LINE)
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert nothing_is_expired(simulator, result)
    assert len(result.summary["lost"]) == 1
    assert "MAY BE LOST" in result.message


def test_where_both_names_of_a_csv_are_taken_a_person_has_to_choose(simulate: Simulate, run: Run, volume: Path) -> None:
    simulator = simulate()
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    (volume / f"{stem}.csv").write_bytes(HEADER_LINE)
    before = content(volume)
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert nothing_is_expired(simulator, result)
    assert f"{stem}.csv.partial" in result.message
    assert content(volume) == before
