"""Cleans up after killed runs on a volume: their CSVs get their final name, complete rows only, and a summary.

If this is killed itself, the next run does the rest.
"""

import json
import logging
import os
from collections import Counter
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from app.exceptions import Outcome
from app.logs import log_event
from app.model import Moment, Period, Window
from app.output.csv_report import HEADER
from app.output.files import (
    DRAFT,
    RunName,
    partials_in,
    summary_of,
    sync_directory,
    write_json,
)
from app.output.lock import busy, is_locked
from app.output.past_runs import past_runs, unreported_windows
from app.output.record import Record
from app.output.summary import Summary, status_of

_CUT_SHOWN = 1000  # bytes of a truncated row that are logged


class EarlierRuns(NamedTuple):
    """What a run must know about the runs before it."""

    windows: list[Window]
    """When exams may have been changed that are in no CSV, as far as no exit code has reported it yet.

    Neither the run's own nor that of a run after it.
    """
    seconds_at_work: float
    """For how long Proctor may still be at work on the last call."""


def clean_up(directory: Path, record: Record | None, longest_call: float) -> EarlierRuns:
    """Clean up after killed runs; `longest_call` is in seconds, for runs whose record is not there.

    Raises:
        Busy: a run is under way, though the lock file was free (somebody removed it).
        OSError: a file cannot be read or written.
    """
    now = Moment.now()
    at_work = _seconds_at_work(record, now)
    logged: set[Period] = set()
    for draft in directory.glob(f"expired_exams_*.json{DRAFT}"):
        draft.unlink()
    for partial, name in partials_in(directory).items():
        csv = partial.with_suffix("")
        if is_locked(partial):
            raise busy(directory)
        if csv.exists():
            raise FileExistsError(0, f"it holds both {csv.name} and {partial.name}; move one of them away")
        length, exams = _complete_rows(partial)
        lost = _lost_in(summary_of(csv))
        if lost is None:
            own = record if record and record.csv == csv.name else None
            if not own:
                at_work = max(at_work, longest_call)  # it may have been killed just now, in a call
            _report_killed(csv, name, exams, _window(own, name, longest_call, now))
            logged |= _lost_in(summary_of(csv)) or set()  # in milliseconds, as all runs compare them
        elif lost:
            _note_unreported(summary_of(csv))
        _cut(partial, length)
        partial.rename(csv)
    sync_directory(directory)
    windows = unreported_windows(past_runs(directory)[0])
    for period in [window.period for window in windows if window.period not in logged]:
        message = f"Exams that Proctor changed {period} may be in no CSV, and no exit code has reported that yet."
        log_event(logging.ERROR, "unresolved", message, **period.bounds())
    return EarlierRuns(windows, at_work)


def _window(record: Record | None, name: RunName, longest_call: float, now: Moment) -> list[Window]:
    """The window of a killed run; none where it was killed between two calls."""
    reason = "the run was killed"
    if record is None:
        return [Window.of_call(Moment.of_unknown_boot(name.started), now, reason, grace=longest_call)]
    longest = record.longest_call
    rebooted = record.since.boot != now.boot  # power failed, say, and what was written last may be gone
    if not rebooted and not record.unreported:
        return []
    at_most = float("inf") if rebooted else longest
    calls = [began for began in (record.since, record.last_lost, record.last_call) if began]
    windows = [Window.of_call(began, now, reason, grace=longest, longest=at_most) for began in calls]
    return [reduce(Window.joined, windows)]


def _seconds_at_work(record: Record | None, now: Moment) -> float:
    if not record or not record.last_call:
        return 0
    passed = now.seconds_since(record.last_call)
    if record.last_call.boot != now.boot and record.last_call.wall > now.wall:
        passed = 0  # a clock was set back, and the call may have begun just now
    return max(record.longest_call - passed, 0)


def _lost_in(summary: Path) -> set[Period] | None:
    """The windows that a summary lists and nobody has resolved; None where there is no summary that can be read."""
    try:
        lost = [one for one in json.loads(summary.read_bytes())["lost"] if not one.get("resolved")]
        return {Period.parse(one["start"], one["end"]) for one in lost}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _note_unreported(summary: Path) -> None:
    """Note that a run's exit code may not have been received, so that its windows stay unreported until one is."""
    write_json(summary, json.loads(summary.read_bytes()) | {"reported": False})


def _complete_rows(path: Path) -> tuple[int, Counter[str]]:
    """The length of a CSV file up to the end of its last complete row, and its exams by status."""
    length, end, quotes, exams = 0, 0, 0, Counter[str]()
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            quotes += line.count(b'"')
            if line.endswith(b"\r\n") and quotes % 2 == 0:  # else the line break is in a quoted cell
                if length:
                    status = line.rpartition(b",")[2].strip()
                    exams[status_of(status.decode("utf-8", "replace"))] += 1
                length = end
    return length, exams


def _report_killed(csv: Path, name: RunName, exams: Counter[str], lost: list[Window]) -> None:
    message = f"An earlier run was killed. Its {exams.total():,} rows are in {csv.name}"
    if not lost:
        message += ", and it was killed between two calls: nothing is missing."
        log_event(logging.WARNING, "killed_run", message, csv=csv.name)
    for window in lost:
        message += f"; exams that Proctor changed {window.period} may be in no CSV."
        log_event(logging.ERROR, "killed_run", message, csv=csv.name, **window.period.bounds())
    summary = Summary(name.client, None, began=Moment.of_unknown_boot(name.started))
    summary.outcome = Outcome.KILLED
    summary.message = message
    summary.exams = exams
    summary.lost = lost
    unknown = {"version": None, "calls": None, "retries": None}
    write_json(summary_of(csv), summary.as_object() | unknown)


def _cut(partial: Path, length: int) -> None:
    """Remove what follows the complete rows. The file stays as old as they are, which shows when they were written."""
    status = partial.stat()
    with partial.open("r+b") as file:
        file.seek(length)
        if truncated := file.read():
            log_event(
                logging.WARNING,
                "truncated_row",
                f"TRUNCATED ROW {truncated[:_CUT_SHOWN]!r} removed from the end of {partial.name}.",
            )
            file.truncate(length)
        if not length:
            file.seek(0)
            file.write(HEADER)
        file.flush()
        with suppress(PermissionError):  # it belongs to another user
            os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(file.fileno())
