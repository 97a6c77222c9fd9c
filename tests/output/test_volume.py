"""The CSV and the summary on a volume: verified as writable first, durable, and with a final name at every end."""

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.output.csv_report import csv_bytes
from app.output.volume import Volume
from app.signals import Stop
from tests.output.volumes import (
    PLAIN,
    ROW,
    each_exam_is_in_the_csv_or_in_the_log,
    launcher,
    leave,
    monitoring,
    nothing_is_expired,
    only,
    sabotaged,
    unwritten,
    without_privileges,
)
from tests.promise import holds
from tests.support import HEADER_LINE, PATIENCE, QUICK, Jobs, Run, Simulate, expired, files_in, ids, ids_in

FULL_AFTER_12_KIB = 'ulimit -f 24; exec "$@"'


@pytest.fixture
def small_disk(volume: Path) -> Iterator[Path]:
    """A file system of four pages."""
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(volume)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs")
    yield volume
    subprocess.run(["umount", str(volume)], check=True)


def test_the_header_alone_says_that_nothing_was_overdue(simulate: Simulate, run: Run, volume: Path) -> None:
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert (result.code, result.stdout) == (0, b"")
    assert only(volume, ".csv").read_bytes() == HEADER_LINE


def test_a_volume_gets_a_csv_and_its_summary_for_nobody_else_to_read(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert (result.code, result.stdout) == (0, b"")
    csv = only(volume, ".csv")
    assert re.fullmatch(r"expired_exams_SBAC_PT_\d{8}T\d{6}Z\.csv", csv.name)
    assert set(files_in(volume)) == {csv.name, csv.stem + ".json"}
    assert sorted(ids(csv.read_bytes())) == sorted(expired(simulator))
    assert json.loads(csv.with_suffix(".json").read_bytes()) == result.summary
    assert [path.name for path in volume.iterdir() if path.stat().st_mode & 0o007] == []


@pytest.mark.parametrize(
    ("client_name", "stem"), [("a&..\\b c.d%", "a_b_c_d_"), ("\u00e9t\u00e9", "_t_"), ("x" * 300, "x" * 64)]
)
def test_any_client_name_makes_a_name_of_a_file(
    simulate: Simulate, run: Run, volume: Path, client_name: str, stem: str
) -> None:
    assert run(simulate(), OUTPUT_DIR=str(volume), CLIENT_NAME=client_name).summary["client_name"] == client_name
    assert re.fullmatch(rf"expired_exams_{stem}_\d{{8}}T\d{{6}}Z\.csv", only(volume, ".csv").name)


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
    new = {name: text for name, text in files_in(volume).items() if name not in taken}
    assert [name[-6:] for name in sorted(new)] == ["_2.csv", "2.json"]
    assert taken.items() <= files_in(volume).items()


@pytest.mark.parametrize("name", ["missing", "a file", "a file/below"])
def test_an_output_dir_that_is_not_a_directory_stops_the_run_before_the_token(
    simulate: Simulate, run: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a file").touch()
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(tmp_path / name))
    assert nothing_is_expired(simulator, result)
    assert str(tmp_path / name) in result.message


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
@pytest.mark.parametrize(("at_fault", "mode"), [("", 0o555), ("", 0o333), (".lock", 0o555)])
def test_an_output_dir_without_permissions_is_reported_with_owner_mode_user_and_a_fix(
    simulate: Simulate, jobs: Jobs, volume: Path, at_fault: str, mode: int
) -> None:
    shell = without_privileges(jobs.directory)
    simulator = simulate()
    path = volume / at_fault if at_fault else volume
    if at_fault:
        path.touch()
    path.chmod(mode)
    result = jobs.run({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)}, executable=shell)
    assert nothing_is_expired(simulator, result)
    assert "Nothing was expired." in result.message
    user, group = os.geteuid(), os.getegid()
    assert (
        f"OUTPUT_DIR {str(volume)!r} cannot be used by user {user}, group {group}: {path} belongs to user {user}, group"
        f" {group}, with mode 0{mode:o}. Fix the permissions, for example: chown {user} {path}" in result.message
    )
    assert files_in(volume) == {}


def test_a_full_volume_stops_the_run_before_the_token_and_is_left_as_it_was(
    simulate: Simulate, run: Run, small_disk: Path
) -> None:
    simulator = simulate(exams=0)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 16 * 1024)
    result = run(simulator, OUTPUT_DIR=str(small_disk))
    assert nothing_is_expired(simulator, result)
    assert "Free disk space." in result.message
    assert "final name" not in result.stderr.decode()
    filler.unlink()
    assert files_in(small_disk) == {}
    assert run(simulator, OUTPUT_DIR=str(small_disk)).events("killed_run") == []


def test_rows_for_which_a_volume_has_no_room_go_to_the_log(simulate: Simulate, jobs: Jobs, volume: Path) -> None:
    simulator = simulate()
    shell = launcher(jobs.directory, FULL_AFTER_12_KIB)
    result = jobs.run({**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)}, executable=shell)
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, only(volume, ".csv").read_bytes())
    assert json.loads(only(volume, ".json").read_bytes()) == result.summary
    assert len(files_in(volume)) == 2


def test_a_disk_without_room_even_for_the_summary_leaves_it_to_the_next_run_to_report_what_is_missing(
    simulate: Simulate, run: Run, jobs: Jobs, small_disk: Path
) -> None:
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(small_disk))
    partial = only(small_disk, ".partial")
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, partial.read_bytes())
    assert "Free disk space." in result.message
    assert set(files_in(small_disk)) == {partial.name}
    (failure,) = result.events("output_failed")
    assert "is missing: run the job again, so that it reports the window of the lost response." in failure["message"]
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert jobs.run({}, "recover", str(small_disk)).code == 75
    following = run(simulator, OUTPUT_DIR=str(small_disk))
    assert following.code == 65
    assert jobs.run({}, "recover", str(small_disk)).code == 0
    (window,) = following.summary["lost"]
    assert holds(window, simulator.record[1]["changed"])
    assert json.loads(partial.with_suffix("").with_suffix(".json").read_bytes())["lost"] == [window]


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


FSYNC = (
    "real = os.fsync\n"
    "def fsync(descriptor):\n"
    "    refuse() if is_csv(descriptor) and os.fstat(descriptor).st_size > 12_000 else real(descriptor)\n"
    "os.fsync = fsync\n"
)


def test_a_batch_that_is_not_on_disk_is_taken_back_and_in_the_log(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path
) -> None:
    simulator = simulate()
    with monitoring() as monitor:
        settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "HEARTBEAT_URL": monitor.url}
        result = jobs.run(settings | sabotaged(tmp_path, FSYNC))
    assert each_exam_is_in_the_csv_or_in_the_log(simulator, result, only(volume, ".csv").read_bytes())
    assert sorted(unwritten(result)) == sorted(simulator.record[1]["expired"])
    assert monitor.received == ["start", "74"]


@pytest.mark.parametrize("call", ["lseek", "ftruncate"])
def test_a_batch_that_cannot_be_taken_back_is_in_the_log_all_the_same(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path, call: str
) -> None:
    simulator = simulate()
    with monitoring() as monitor:
        settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "HEARTBEAT_URL": monitor.url}
        result = jobs.run(settings | sabotaged(tmp_path, f"{FSYNC}os.{call} = refuse"))
    assert result.code == 74
    assert sorted(unwritten(result)) == sorted(simulator.record[1]["expired"])
    assert f"Rows missing from it: {len(simulator.record[1]['expired'])}." in result.message
    assert result.events("not_taken_back")
    assert b"Traceback" not in result.stderr
    assert monitor.received == ["start", "74"]


FAILING_CLOSE = (
    "real = os.close\ndef close(descriptor):\n    csv = is_csv(descriptor)\n    real(descriptor)\n"
    "    csv and refuse()\nos.close = close\n"
)


def test_a_close_that_fails_is_a_failure_and_is_reported_to_the_monitor(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path
) -> None:
    simulator = simulate()
    with monitoring() as monitor:
        settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "HEARTBEAT_URL": monitor.url}
        result = jobs.run(settings | sabotaged(tmp_path, FAILING_CLOSE))
    assert (result.code, result.summary["outcome"]) == (74, "failed")
    assert os.strerror(errno.EIO) in result.message
    assert b"Traceback" not in result.stderr
    assert monitor.received == ["start", "74"]
    assert ids_in(volume) == sorted(expired(simulator))
    assert json.loads(only(volume, ".json").read_bytes())["exit_code"] == 74


RENAME = "os.rename = refuse"


@pytest.mark.parametrize(
    ("faults", "codes", "following"), [([], ["start", "0", "74"], 0), (["500-after"], ["start", "65"], 65)]
)
def test_a_final_name_that_cannot_be_given_is_left_to_the_next_run(
    simulate: Simulate,
    jobs: Jobs,
    run: Run,
    volume: Path,
    tmp_path: Path,
    faults: list[str],
    codes: list[str],
    following: int,
) -> None:
    simulator = simulate(faults=faults)
    with monitoring() as monitor:
        settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "HEARTBEAT_URL": monitor.url}
        result = jobs.run(settings | sabotaged(tmp_path, RENAME))
    assert str(result.code) == codes[-1] == monitor.received[-1]
    assert monitor.received == codes
    assert result.events("output_failed")
    assert b"Traceback" not in result.stderr
    partial = only(volume, ".partial")
    next_run = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert next_run.code == following
    assert partial.with_suffix("").exists()
    assert next_run.summary["lost"] == result.summary["lost"]


HISTORY_AT_RENAME = (
    "import subprocess, sys\nreal = os.rename\n"
    "def rename(old, new):\n"
    "    if str(new).endswith('.csv'):\n"
    "        history = [sys.executable, '-m', 'app', 'history', os.path.dirname(new)]\n"
    "        open('history', 'wb').write(subprocess.run(history, capture_output=True).stdout)\n"
    "    real(old, new)\n"
    "os.rename = rename\n"
)


def test_a_run_is_under_way_until_its_csv_has_its_final_name(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path
) -> None:
    settings = {**simulate().settings(), **QUICK, "OUTPUT_DIR": str(volume)}
    assert jobs.run(settings | sabotaged(tmp_path, HISTORY_AT_RENAME)).code == 0
    history = (jobs.directory / "history").read_bytes()
    assert b"belongs to a run that is under way." in history
    assert b"killed" not in history


@pytest.mark.parametrize("fail", ["refuse()", "real.write(self, data[:5])"])
def test_no_call_is_made_that_is_not_on_record(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path, tmp_path: Path, fail: str
) -> None:
    write = f"lambda self, data: {fail} if b'\"unreported\": true' in data else real.write(self, data)"
    simulator = simulate()
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)}
    result = jobs.run(settings | sabotaged(tmp_path, writing_records_by(write)))
    assert result.code == 74
    assert simulator.record == []
    assert "No further call is made." in result.message
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0
    assert ids_in(volume) == sorted(expired(simulator))


@pytest.mark.parametrize("fail", ["refuse()", "real.write(self, data[:5])"])
def test_a_run_whose_record_cannot_be_updated_after_a_call_has_all_rows(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path, tmp_path: Path, fail: str
) -> None:
    """Where the file system fails between the two, the run stops before its second call."""
    write = f"lambda self, data: {fail} if has_rows() else real.write(self, data)"
    code = (
        "import glob\n"
        f"def has_rows():\n    return any(os.path.getsize(p) > 100 for p in glob.glob('{volume}/*.partial'))\n"
    )
    simulator = simulate()
    short = {"READ_TIMEOUT": "1", "CONNECT_TIMEOUT": "1"}  # the next run waits as long
    settings = {**simulator.settings(), **QUICK, **short, "OUTPUT_DIR": str(volume)}
    result = jobs.run(settings | sabotaged(tmp_path, code + writing_records_by(write)))
    assert (result.code, len(simulator.record)) == (74, 1)
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0
    assert ids_in(volume) == sorted(expired(simulator))


def writing_records_by(write: str) -> str:
    """The code that makes `write` the way in which bytes get into the lock file."""
    return (
        "import builtins\nreal = io.FileIO\nplain = open\n"
        f"class Lock(real):\n    write = {write}\n"
        "def opening(path, mode='r', *rest, **options):\n"
        "    if not str(path).endswith('.lock'):\n        return plain(path, mode, *rest, **options)\n"
        "    return Lock(path, 'r+', opener=options['opener'])\n"
        "builtins.open = opening\n"
    )


def test_writes_that_are_short_are_continued(simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path) -> None:
    simulator = simulate()
    code = "real = os.write\nos.write = lambda to, data: real(to, data[: 1 + len(data) // 3])"
    result = jobs.run(
        {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)} | sabotaged(tmp_path, code),
    )
    assert result.code == 0
    assert ids_in(volume) == sorted(expired(simulator))


def directories_that_fail_with(error: str) -> str:
    """The code that lets no directory be forced to disk."""
    return (
        "import stat\nreal = os.fsync\n"
        "def fsync(descriptor):\n"
        "    if stat.S_ISDIR(os.fstat(descriptor).st_mode):\n"
        f"        raise OSError(errno.{error}, os.strerror(errno.{error}))\n"
        "    real(descriptor)\n"
        "os.fsync = fsync\n"
    )


@pytest.mark.parametrize(("error", "code"), [("EINVAL", 0), ("EIO", 74)])
def test_check_and_a_run_agree_on_a_directory_that_cannot_be_forced_to_disk(
    simulate: Simulate, jobs: Jobs, volume: Path, tmp_path: Path, error: str, code: int
) -> None:
    simulator = simulate()
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume)}
    settings |= sabotaged(tmp_path, directories_that_fail_with(error))
    assert jobs.run(settings, "check").code == jobs.run(settings).code == code
    assert ids_in(volume) == sorted(expired(simulator))


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
    with closing(Volume(volume, 300)) as held:
        held.clean_up()
        assert safe(volume / f"{killed}.csv")
        assert safe(volume / f"{killed}.json")
        report = held.report("SBAC_PT", Stop())
        report.open()
        assert safe(only(volume, ".partial"))
        report.write([ROW])
        assert only(volume, ".partial").read_bytes() == HEADER_LINE + csv_bytes([ROW])
        assert safe(only(volume, ".partial"))
        report.close()
        report.save({})
        report.publish()
    assert all(safe(path) for path in volume.glob("expired_exams_*"))
