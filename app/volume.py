"""Reports on a volume: a CSV and a summary a run, one run at a time, and what a killed run left brought in order.

The CSV of a run under way is called `.partial`. Every orderly end renames it and puts a summary beside it.
"""

import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from app.exits import Busy, Outcome, OutputFailed
from app.logs import event, moment, timestamp
from app.output.mounts import refuse_ephemeral
from app.proctor import Exam, Window
from app.report import HEADER, Report
from app.settings import Settings
from app.signals import Stop
from app.summary import Summary, status_of

_LOCK = ".lock"
_PARTIAL = ".partial"
_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"expired_exams_(.*)_(\d{8}T\d{6}Z)(?:_\d+)?\.csv")


class VolumeReport(Report):
    """A CSV of its own in a directory, with the run's summary beside it."""

    def __init__(self, directory: Path, settings: Settings, stop: Stop, lost: list[Window]) -> None:
        """Takes the lock, brings in order what killed runs left, then as `Report`. Raises also Busy.

        The windows in which those may have lost answers are added to `lost`, also if a failure comes after.
        """
        refuse_ephemeral(directory)
        try:
            self._lost = False
            self._lock = _Lock(directory)
            _recover(directory, self._lock, settings.read_timeout, lost)
            self._csv = _new_name(directory, settings.client_name)
            self._partial = self._csv.with_name(self._csv.name + _PARTIAL)
            # Closed when the process ends, or by `finish`.
            self._file = open(self._partial, "xb", buffering=0, opener=_create)  # noqa: SIM115
            _sync_directory(directory)
        except OSError as error:
            raise OutputFailed(f"{_unusable(directory, error)} Nothing was expired.") from None
        try:
            super().__init__(self._file.fileno(), str(self._csv), stop)
        except BaseException:
            self._file.close()
            with suppress(OSError):
                self._partial.unlink()
            raise
        self._lock.set_mark(self._csv)

    def write(self, exams: Iterable[Exam]) -> None:
        super().write(exams)
        if not self._lost:
            self._lock.set_mark(self._csv)

    def answer_lost(self) -> None:
        self._lost = True  # from now on the mark stays, so that the window of a killed run has this answer in it

    def finish(self, summary: dict[str, Any]) -> None:
        try:
            self._file.close()
            try:
                _write_summary(self._csv, summary)
            except OSError:
                if not self._lost:  # else the next run finds the `.partial`, and names what this one cannot
                    self._partial.rename(self._csv)
                raise
            self._partial.rename(self._csv)
            _sync_directory(self._csv.parent)
        except OSError as error:
            raise OutputFailed(
                f"{_unusable(self._csv.parent, error)} What is missing is the summary {self._csv.stem}.json,"
                " or the final name of the CSV."
            ) from None
        finally:
            self._lock.release()


def prove_writable(directory: Path) -> None:
    """Write a file that has no name and is gone at once; raises OutputFailed where that is not possible."""
    refuse_ephemeral(directory)
    lock = directory / _LOCK
    try:
        if lock.exists():
            lock.open("r+b").close()
        with TemporaryFile(dir=directory) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        if error.filename != str(lock):
            error.filename = None  # the name of that file tells nobody anything
        raise OutputFailed(_unusable(directory, error)) from None


def _unusable(directory: Path, error: OSError) -> str:
    """A sentence that says what is wrong with an output directory, and who may not use it."""
    if not directory.exists():
        return f"OUTPUT_DIR {str(directory)!r} does not exist. Create it: it is not created by itself."
    who = ""
    if sys.platform != "win32":
        who = f" as user {os.geteuid()}, group {os.getegid()}"
    what = f" ({error.filename})" if error.filename and str(error.filename) != str(directory) else ""
    advice = (
        f" Make {'that file' if what else 'it'} writable for that user." if isinstance(error, PermissionError) else ""
    )
    return f"OUTPUT_DIR {str(directory)!r} cannot be used{who}: {error.strerror}{what}.{advice}"


def name_in_files(client_name: str) -> str:
    """A client name as the names of its files have it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", client_name)[:64]


def _new_name(directory: Path, client_name: str) -> Path:
    """A name that no file of an earlier run has, also where two runs begin in the same second."""
    stem = f"expired_exams_{name_in_files(client_name)}_{datetime.now(UTC):{_STAMP}}"
    for number in count(1):
        name = directory / (stem + (f"_{number}" if number > 1 else "") + ".csv")
        if not any(path.exists() for path in (name, name.with_suffix(".json"), name.with_name(name.name + _PARTIAL))):
            return name
    raise AssertionError("unreachable")


def _create(path: str, flags: int) -> int:
    """As an `opener`: creates where need be, for user and group only, as student ids are nobody else's business."""
    return os.open(path, flags | os.O_CREAT, 0o640)


def _write_summary(csv_path: Path, summary: dict[str, Any]) -> None:
    """Put the summary beside the CSV, whole or not at all."""
    target = csv_path.with_suffix(".json")
    draft = target.with_name(target.name + ".tmp")
    try:
        with open(draft, "w", encoding="utf-8", opener=_create) as file:
            json.dump(summary, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    """Make new names in the directory durable, where the system has a way to."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Lock:
    """Held on a volume as long as the process lives; the system releases it, also after a kill.

    The file's content is a mark: a CSV, and the time of the last write to it after which no answer had been lost yet.
    Whatever answers a killed run lost belong to calls that began after it.
    """

    def __init__(self, directory: Path) -> None:
        self._file = open(directory / _LOCK, "r+b", buffering=0, opener=_create)  # noqa: SIM115 - held for good
        if not _try_lock(self._file.fileno()):
            raise Busy(f"Another run is under way on OUTPUT_DIR {str(directory)!r}. Let the other one finish.")

    def release(self) -> None:
        self._file.close()

    def mark(self, csv_path: Path) -> datetime | None:
        """When the last write to this CSV was made durable, if that is what the mark tells."""
        self._file.seek(0)
        try:
            told, name = self._file.read(4096).decode().splitlines()[0].split()
            written = moment(told)
            return written if name == csv_path.name and written <= datetime.now(UTC) else None
        except (ValueError, IndexError, OverflowError):
            return None

    def set_mark(self, csv_path: Path) -> None:
        with suppress(OSError):  # an older mark only widens the window of a killed run
            self._file.seek(0)
            self._file.write(f"{timestamp(datetime.now(UTC))} {csv_path.name}\n".encode())


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # behind the mark: others could not read a locked range
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _recover(directory: Path, lock: _Lock, at_work: float, windows: list[Window]) -> None:
    """Give the CSV of every killed run its final name, whole rows only, and a summary that names the lost window.

    Adds those to `windows`. Whenever this is killed itself, the next run takes it up again.
    """
    for draft in directory.glob("expired_exams_*.json.tmp"):
        draft.unlink()
    for partial in sorted(directory.glob(f"expired_exams_*.csv{_PARTIAL}")):
        csv_path = partial.with_suffix("")
        if not (named := _named(csv_path)) or not partial.is_file():
            continue
        if csv_path.exists():
            raise FileExistsError(0, f"it holds both {csv_path.name} and {partial.name}; move one of them away")
        length, exams = _whole_rows(partial)
        lost = _lost_in(csv_path.with_suffix(".json"))
        if lost is None:
            start = max(named.started, lock.mark(csv_path) or named.started)
            lost = [Window.until_now(start, "the run was killed", at_work)]
            _report_killed(csv_path, named, exams, lost[0])
        windows += lost  # also those of a summary: whoever wrote it was killed before an exit code told of them
        _cut_torn_row(partial, length)
        partial.rename(csv_path)
    _sync_directory(directory)


def _lost_in(summary: Path) -> list[Window] | None:
    """The windows that a summary names; None where there is none that can be read."""
    try:
        lost = json.loads(summary.read_bytes())["lost"]
        return [Window(moment(one["start"]), moment(one["end"]), str(one["reason"])) for one in lost]
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _whole_rows(path: Path) -> tuple[int, Counter[str]]:
    """The length of a CSV file up to the end of its last whole row, and its exams by status."""
    length, end, quotes, exams = 0, 0, 0, Counter[str]()
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            quotes += line.count(b'"')
            if line.endswith(b"\r\n") and quotes % 2 == 0:  # else the line break stands in a quoted cell
                if length:
                    status = line.rpartition(b",")[2].strip()
                    exams[status_of(status.decode("utf-8", "replace"))] += 1
                length = end
    return length, exams


class _Name(NamedTuple):
    client: str
    started: datetime


def _named(csv_path: Path) -> _Name | None:
    """What the name of a run's CSV tells; None for a file that is no such CSV."""
    name = _NAME.fullmatch(csv_path.name)
    try:
        return _Name(name[1], datetime.strptime(name[2], _STAMP).replace(tzinfo=UTC)) if name else None
    except ValueError:
        return None


def _report_killed(csv_path: Path, named: _Name, exams: Counter[str], window: Window) -> None:
    start, end = timestamp(window.start), timestamp(window.end)
    message = (
        f"An earlier run was killed. Its {exams.total():,} rows are in {csv_path.name}; an answer may be lost: exams"
        f" that Proctor changed from {start} to {end} may be in no CSV."
    )
    summary = Summary(named.client, None)
    summary.started = named.started
    summary.outcome = Outcome.KILLED
    summary.message = message
    summary.exams = exams
    summary.lost = [window]
    unknown = {"version": None, "calls": None, "retries": None}
    _write_summary(csv_path, summary.as_object() | unknown)
    event(logging.ERROR, "killed_run", message, csv=csv_path.name, start=start, end=end)


def _cut_torn_row(partial: Path, length: int) -> None:
    with partial.open("r+b") as file:
        file.seek(length)
        if torn := file.read():
            event(logging.WARNING, "torn_row", f"Cut from {partial.name}, as it is no whole row: {torn[:1000]!r}")
            file.truncate(length)
        if not length:
            file.seek(0)
            file.write(HEADER)
        file.flush()
        os.fsync(file.fileno())
