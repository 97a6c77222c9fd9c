"""The directory that OUTPUT_DIR names: one run at a time, and a CSV and a summary for each run.

The CSV of a run under way is called `.partial`. Every orderly end puts the summary beside it and then, as the last
step, gives it its final name: a run that is killed before that is noticed by the next one.
"""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from app.exceptions import OutputFailed
from app.model import Exam, Moment
from app.output.csv_report import CsvReport
from app.output.files import csv_of_new_run, opener, partial_of, summary_of, sync_directory, write_json
from app.output.killed_runs import EarlierRuns, clean_up
from app.output.lock import LOCK, Lock, lock_within
from app.output.mounts import refuse_ephemeral
from app.output.past_runs import PastRun, past_runs
from app.output.record import Record
from app.signals import Stop

_LOCKED_WITHIN = 5.0  # seconds
_NOTHING_EXPIRED = "Nothing was expired."


class Volume:
    """The directory, held by this run."""

    def __init__(self, directory: Path, longest_call: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Takes the lock, which `recover` may hold for some seconds: it waits by `sleep` for it.

        `longest_call` is for how many seconds a call may last, from its connection on.

        Raises:
            OutputFailed: the directory cannot be used, or would be deleted with its container.
            Busy: another run holds it.
        """
        refuse_ephemeral(directory)
        self._directory = directory
        self._longest_call = longest_call
        self._seconds_at_work = 0.0
        with _reporting(directory, _NOTHING_EXPIRED):
            self._lock = Lock(directory, _LOCKED_WITHIN, sleep)
            self._record = self._lock.read()

    def clean_up(self) -> EarlierRuns:
        """Clean up after killed runs.

        Raises:
            OutputFailed: a file cannot be read or written.
            Busy: a run is under way, though the lock was free.
        """
        with _reporting(self._directory, _NOTHING_EXPIRED):
            earlier = clean_up(self._directory, self._record, self._longest_call)
        self._seconds_at_work = earlier.seconds_at_work
        return earlier

    def past_runs(self) -> tuple[list[PastRun], list[str]]:
        """As `past_runs` of the directory; raises OutputFailed where it cannot be listed."""
        with _reporting(self._directory, _NOTHING_EXPIRED):
            return past_runs(self._directory)

    def report(self, client_name: str, stop: Stop) -> "VolumeReport":
        """A CSV for a new run, still without its header; raises OutputFailed where it cannot be made."""
        csv = csv_of_new_run(self._directory, client_name)
        now = Moment.now()
        at_work = now if self._seconds_at_work else None  # if this run is killed while it waits, the next one waits
        record = Record(csv.name, now, False, at_work, max(self._longest_call, self._seconds_at_work))
        with _reporting(self._directory, _NOTHING_EXPIRED):
            self._lock.write(record)  # before there is a CSV: without one it would look as if a call was under way
            file = FileIO(partial_of(csv), "x", opener=opener)
            # Distinguishes it from a killed run's, even if the lock file was removed.
            lock_within(_LOCKED_WITHIN, file.fileno())
            sync_directory(self._directory)
        return VolumeReport(csv, file, self._lock, record, stop)

    def close(self) -> None:
        """Let other runs have it."""
        self._lock.release()


class VolumeReport(CsvReport):
    """A CSV of its own on a volume, with the summary of the run beside it."""

    def __init__(self, csv: Path, file: FileIO, lock: Lock, record: Record, stop: Stop) -> None:
        super().__init__(file.fileno(), str(csv), stop)
        self._csv = csv
        self._file = file
        self._lock = lock
        self._record = record
        self._lost_at_work: Moment | None = None  # when a call was lost that Proctor may still be working on
        self._has_summary = False

    def open(self) -> None:
        try:
            super().open()
        except BaseException:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                partial_of(self._csv).unlink()
            raise

    def call_begins(self, began: Moment) -> None:
        since = self._record.since if self._record.unreported else began
        # The former record would say that no call was under way.
        with _reporting(self._csv.parent, "No further call is made."):
            self._keep(self._record._replace(since=since, unreported=True, last_call=began))

    def nothing_changed(self) -> None:
        self._all_reported()

    def response_lost(self, at_work: bool) -> None:
        # From now on `since` stays: the window of a killed run has every response in it that was lost. And the next run
        # waits as long as this one does where Proctor may go on with the call.
        self._lost_at_work = Moment.now() if at_work else None
        with suppress(OSError):  # the former record says that a call is under way
            self._keep(self._record._replace(last_lost=self._record.last_call, last_call=self._lost_at_work))

    def write(self, exams: Sequence[Exam]) -> None:
        super().write(exams)
        self._lost_at_work = None
        self._all_reported()

    def _all_reported(self) -> None:
        """The last call has ended, and its exams are in the CSV; those of a lost response are not."""
        if not self._record.last_lost:
            self._record = self._record._replace(since=Moment.now(), unreported=False)
        with suppress(OSError):  # the former record only makes a window wider
            self._keep(self._record._replace(last_call=self._lost_at_work))

    def _keep(self, record: Record) -> None:
        self._record = record
        self._lock.write(record)

    def close(self) -> None:
        # The file itself stays open, and so locked, until it gets its final name: until then the run is under way.
        try:
            os.close(os.dup(self._file.fileno()))
        except OSError as error:
            consequence = "Every batch of rows was on disk before; compare the CSV with the log."
            raise self._failure(error, consequence) from None

    def save(self, summary: dict[str, Any]) -> None:
        with _reporting(self._csv.parent, self._without_summary()):
            write_json(summary_of(self._csv), summary)
            self._has_summary = True

    def _without_summary(self) -> str:
        name = summary_of(self._csv).name
        if not self._record.last_lost:
            return f"Only the summary {name} is missing."
        return f"The summary {name} is missing: run the job again, so that it reports the window of the lost response."

    def publish(self) -> None:
        if self._record.last_lost and not self._has_summary:
            return  # the next run finds the `.partial`, and reports what this one cannot
        if sys.platform == "win32":  # it renames no open file
            self._give_up_lock()
        consequence = f"The CSV is complete, but could not be renamed to {self._csv.name}: the next run does that."
        try:
            with _reporting(self._csv.parent, consequence):
                partial_of(self._csv).rename(self._csv)
                sync_directory(self._csv.parent)
        finally:
            self._give_up_lock()  # not earlier: a `.partial` without it looks like a killed run's

    def _give_up_lock(self) -> None:
        with suppress(OSError):
            self._file.close()


def verify_writable(directory: Path) -> None:
    """Write a temporary file without a name; raises OutputFailed if that is not possible."""
    refuse_ephemeral(directory)
    lock = directory / LOCK
    try:
        if lock.exists():
            lock.open("r+b").close()
        with TemporaryFile(dir=directory) as file:
            file.write(b"x")
            file.flush()
        sync_directory(directory)
    except OSError as error:
        if error.filename != str(lock):
            error.filename = None  # the name of that file means nothing to the operator
        raise OutputFailed(unusable(directory, error)) from None


@contextmanager
def _reporting(directory: Path, consequence: str) -> Iterator[None]:
    """Raise an OutputFailed in place of an OSError: what is wrong with the directory, and the consequence."""
    try:
        yield
    except OSError as error:
        raise OutputFailed(f"{unusable(directory, error)} {consequence}") from None


def unusable(directory: Path, error: OSError) -> str:
    """A sentence that says what is wrong with an output directory, and what to do."""
    shown = f"OUTPUT_DIR {str(directory)!r}"
    if not os.path.exists(directory):
        return f"{shown} does not exist, or this user cannot see it. Create it: this program does not."
    if not directory.is_dir():
        return f"{shown} is not a directory."
    path = Path(os.fsdecode(error.filename)) if error.filename else directory
    if isinstance(error, PermissionError) and sys.platform != "win32":
        at_fault = path if os.path.exists(path) else directory
        owner = at_fault.stat()
        return (
            f"{shown} cannot be used by user {os.geteuid()}, group {os.getegid()}: {at_fault} belongs to user"
            f" {owner.st_uid}, group {owner.st_gid}, with mode {owner.st_mode & 0o7777:04o}. Fix the permissions, for"
            f" example: chown {os.geteuid()} {at_fault}"
        )
    what = f" ({path.name})" if path != directory else ""
    advice = " Free disk space." if error.errno == errno.ENOSPC else ""
    return f"{shown} cannot be used: {error.strerror}{what}.{advice}"
