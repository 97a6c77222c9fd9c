"""The CSV on stdout: verified as writable before anything is expired, no row lost or duplicated."""

import errno
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import pytest

from app.exceptions import OutputFailed
from app.model import Exam
from app.output.csv_report import CsvReport, csv_bytes
from app.signals import Stop
from app.simulator import Simulator
from app.streams import PIPE_CHUNK
from tests.output.volumes import (
    ROW,
    each_exam_is_in_the_csv_or_in_the_log,
    launcher,
    nothing_is_expired,
    sabotaged,
    unwritten,
)
from tests.support import HEADER_LINE, PATIENCE, QUICK, Jobs, Result, Run, Simulate, expired, ids, rows_of

FULL_AFTER_12_KIB = 'ulimit -f 24; exec "$@"'


def test_the_csv_is_rfc_4180_in_utf_8_with_its_header(simulate: Simulate, run: Run) -> None:
    lines = run(simulate(exams=5, faults=["malformed-records"])).stdout
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


def test_the_header_alone_says_that_nothing_was_overdue(simulate: Simulate, run: Run) -> None:
    assert run(simulate(exams=0)).stdout == HEADER_LINE


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_stdout_that_cannot_be_written_stops_the_run_before_the_token(
    simulate: Simulate, jobs: Jobs, redirection: str
) -> None:
    simulator = simulate()
    shell = launcher(jobs.directory, f'exec "$@" {redirection}')
    result = jobs.run({**simulator.settings(), **QUICK}, executable=shell)
    assert nothing_is_expired(simulator, result)
    assert "Nothing was expired." in result.message
    assert ("Free disk space." in result.message) == ("full" in redirection)


def test_a_pipe_that_nobody_reads_any_more_stops_the_run_before_the_token(simulate: Simulate, jobs: Jobs) -> None:
    simulator = simulate()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        assert nothing_is_expired(simulator, jobs.run({**simulator.settings(), **QUICK}, stdout=stdout))


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


@pytest.mark.parametrize("redirection", [">", ">>"])
def test_rows_for_which_a_file_has_no_room_go_to_the_log(
    simulate: Simulate, jobs: Jobs, tmp_path: Path, redirection: str
) -> None:
    simulator, csv = simulate(), tmp_path / "exams.csv"
    shell = launcher(jobs.directory, f"{FULL_AFTER_12_KIB} {redirection}{csv}")
    result = jobs.run({**simulator.settings(), **QUICK}, executable=shell)
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, csv.read_bytes())


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


def end_at_full_disk(simulator: Simulator, jobs: Jobs, csv: Path, form: str) -> Result:
    """A run whose second batch of malformed records does not fit into a file."""
    shell = launcher(jobs.directory, f'ulimit -f 24; exec "$@" >{csv}')
    return jobs.run({**simulator.settings(), **QUICK, "LOG_FORMAT": form}, executable=shell)


def test_in_a_json_log_an_unwritten_row_is_exact(simulate: Simulate, jobs: Jobs, tmp_path: Path) -> None:
    simulator = simulate(exams=200, faults=["ok", "malformed-records"])
    result = end_at_full_disk(simulator, jobs, tmp_path / "csv", "json")
    rows = rows_of(HEADER_LINE + "".join(f"{event['row']}\r\n" for event in result.events("unwritten_row")).encode())
    assert len(rows) == len(simulator.record[1]["expired"]) + 5
    assert rows[-1]["assessmentKey"] == 'a "quoted", key\r\nover two lines'


def test_in_a_text_log_an_unwritten_row_is_the_row_or_marked_as_json(
    simulate: Simulate, jobs: Jobs, tmp_path: Path
) -> None:
    simulator = simulate(exams=200, faults=["ok", "malformed-records"])
    result = end_at_full_disk(simulator, jobs, tmp_path / "csv", "text")
    lines = [line.partition(" ERROR   UNWRITTEN ROW ") for line in result.stderr.decode().splitlines()]
    logged = [row for _, found, row in lines if found]
    marked = [row for row in logged if row.startswith("AS JSON ")]
    plain = [row for row in logged if row not in marked]
    assert sorted(ids(HEADER_LINE + "".join(f"{row}\r\n" for row in plain).encode()))[-100:] == sorted(
        simulator.record[1]["expired"]
    )
    (text,) = [json.loads(row.removeprefix("AS JSON ")) for row in marked]
    (row,) = rows_of(HEADER_LINE + f"{text}\r\n".encode())
    assert row["assessmentKey"] == 'a "quoted", key\r\nover two lines'


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What a report in this process logs: the message, and the field `row` or nothing."""
    events: list[tuple[str, str]] = []
    monkeypatch.setattr("app.output.csv_report.log_event", lambda _, __, message, row="": events.append((message, row)))
    return events


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("plain", "plain,i,e,7,expired"),
        ("sch\u00f6n", "sch\u00f6n,i,e,7,expired"),
        (r"a\nb", r"a\nb,i,e,7,expired"),
        ("a\nb", r'AS JSON "\"a\nb\",i,e,7,expired"'),
        ("\x1b[2J", r'AS JSON "\u001b[2J,i,e,7,expired"'),
        ("\u202e", r'AS JSON "\u202e,i,e,7,expired"'),
        ("\x00", r'AS JSON "\u0000,i,e,7,expired"'),
    ],
)
def test_a_row_with_line_breaks_is_distinct_in_a_log_from_one_with_backslashes(
    logged: list[tuple[str, str]], key: str, shown: str
) -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OutputFailed):
        CsvReport(full.fileno(), "a full disk", Stop()).write([ROW._replace(assessmentKey=key)])
    ((message, row),) = logged
    assert message == f"UNWRITTEN ROW {shown}"
    assert rows_of(HEADER_LINE + f"{row}\r\n".encode())[0]["assessmentKey"] == key


@contextmanager
def small_pipe(stop: Stop) -> Iterator[tuple[CsvReport, BinaryIO]]:
    """A report on a pipe that holds a page, its header read, and the pipe's other end."""
    fcntl = pytest.importorskip("fcntl")
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        pytest.skip("needs a pipe of a size of its own")
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stdout, open(writer, "wb", buffering=0):
        os.set_blocking(writer, False)  # a write that should have waited fails instead of hanging
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        report = CsvReport(writer, "a pipe", stop)
        report.open()
        assert stdout.read(4096) == HEADER_LINE
        yield report, stdout


@pytest.mark.parametrize("longer", [0, 1])
def test_a_row_is_either_complete_in_the_pipe_or_in_the_log(logged: list[tuple[str, str]], longer: int) -> None:
    stop = Stop()
    with small_pipe(stop) as (report, stdout):
        for _ in range(2):
            stop._receive(15, None)
        with pytest.raises(OutputFailed, match=f"Rows missing from it: {36 + longer}"):
            report.write([ROW._replace(examId="e" * (1 + longer)), *[ROW] * 99])
        assert stdout.read(8192).count(b"\r\n") == 64 - longer
    assert [row for _, row in logged] == [",".join(ROW)] * (36 + longer)


def test_one_signal_does_not_abandon_a_reader_that_takes_its_time(logged: list[tuple[str, str]]) -> None:
    stop = Stop()
    with small_pipe(stop) as (report, stdout), ThreadPoolExecutor() as pool:
        stop._receive(15, None)
        written = pool.submit(report.write, [ROW] * 100)
        wait([written], 0.1)
        assert stdout.read(8192).count(b"\r\n") == 64
        written.result(PATIENCE)
        assert stdout.read(8192).count(b"\r\n") == 36
    assert logged == []


def test_a_batch_of_any_size_is_handed_to_a_pipe_without_being_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    exams = [Exam("k", "i", str(number), "7", "expired") for number in range(200_000)]
    chunks: list[memoryview] = []

    def write(_: int, chunk: memoryview) -> int:
        chunks.append(chunk)
        return len(chunk)

    with small_pipe(Stop()) as (report, _):
        monkeypatch.setattr(os, "write", write)
        report.write(exams)
        monkeypatch.undo()
    assert b"".join(chunks) == csv_bytes(exams)
    assert len({id(chunk.obj) for chunk in chunks}) == 1  # the rest is copied nowhere, or the time would be quadratic
    assert max(map(len, chunks)) <= PIPE_CHUNK


def fail(*_: Any) -> None:
    """What a system call does on a disk that is broken."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("call", ["lseek", "ftruncate"])
def test_rows_that_cannot_be_taken_back_are_in_the_log_all_the_same_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, logged: list[tuple[str, str]], call: str
) -> None:
    with open(tmp_path / "csv", "wb", buffering=0) as file:
        report = CsvReport(file.fileno(), "a file", Stop())
        report.open()
        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(OutputFailed, match="Rows missing from it: 2"):
            report.write([ROW, ROW])
    assert [row for _, row in logged] == ["", ",".join(ROW), ",".join(ROW)]
    assert "may also be in a file" in logged[0][0]
    assert len(rows_of((tmp_path / "csv").read_bytes())) == 2


def test_rows_that_are_not_on_disk_are_taken_back_and_in_the_log(
    simulate: Simulate, jobs: Jobs, tmp_path: Path
) -> None:
    simulator, csv = simulate(), tmp_path / "exams.csv"
    broken = sabotaged(
        tmp_path,
        "real, count = os.fsync, []\n"
        "def fsync(descriptor):\n"
        "    count.append(1)\n"
        "    refuse() if len(count) == 3 else real(descriptor)\n"
        "os.fsync = fsync",
    )
    with csv.open("wb") as stdout:
        result = jobs.run({**simulator.settings(), **QUICK, **broken}, stdout=stdout)
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, csv.read_bytes())
    assert sorted(unwritten(result)) == sorted(simulator.record[1]["expired"])


def test_a_write_that_is_short_is_continued(simulate: Simulate, jobs: Jobs, tmp_path: Path) -> None:
    simulator, csv = simulate(), tmp_path / "exams.csv"
    broken = sabotaged(tmp_path, "real = os.write\nos.write = lambda to, data: real(to, data[: 1 + len(data) // 3])")
    with csv.open("wb") as stdout:
        result = jobs.run({**simulator.settings(), **QUICK, **broken}, stdout=stdout)
    assert result.code == 0
    assert sorted(ids(csv.read_bytes())) == sorted(expired(simulator))
