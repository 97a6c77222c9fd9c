"""Resolves windows, all or nothing: writes the exams to a CSV of their own and marks the windows in the summaries.

What is to be done is first written to a journal. Whatever ends the program after that, `finish` does the rest.
"""

import json
import logging
from collections.abc import Collection, Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from app.logs import log_event
from app.model import Exam, Period, timestamp
from app.output.csv_report import HEADER, csv_bytes
from app.output.files import DRAFT, draft_of, matching, sync_directory, write_draft, write_json
from app.output.lock import LOCK

_JOURNAL = ".recover.json"


class Resolution(NamedTuple):
    """How windows were resolved, and when (ISO 8601). `csv` is the name of the CSV with the exams, if there are any."""

    windows: list[Period]
    how: str
    at: str
    csv: str | None
    exams: int | None


def write_csv(path: Path, exams: Iterable[Exam]) -> None:
    """Write a CSV to a directory that is locked, durable, complete or not at all; raises OSError."""
    _write_draft(path, exams)
    _publish(path)


def resolve(directory: Path, resolution: Resolution, exams: Collection[Exam]) -> None:
    """Write the exams to the CSV of the resolution, and mark its windows in all summaries. The directory is locked.

    Raises:
        OSError: nothing was done yet, or `finish` is to be called again.
    """
    if resolution.csv:
        _write_draft(directory / resolution.csv, exams)
    windows = [[timestamp(time) for time in window] for window in resolution.windows]
    write_json(directory / _JOURNAL, resolution._asdict() | {"windows": windows})
    finish(directory)


def finish(directory: Path) -> None:
    """Do what an earlier call of `resolve` has left, and remove what it had not yet decided on; raises OSError."""
    journal = directory / _JOURNAL
    if journal.exists():
        try:
            content = json.loads(journal.read_bytes())
            windows = [Period.parse(start, end) for start, end in content["windows"]]
            resolution = Resolution(**content | {"windows": windows})
        except (ValueError, TypeError, KeyError):
            log_event(logging.WARNING, "ignored", f"{journal} is removed: it is not a journal that can be read.")
        else:
            _apply(directory, resolution)
        journal.unlink()
    for draft in [*directory.glob(f"expired_exams_*.csv{DRAFT}"), *directory.glob(_JOURNAL + DRAFT)]:
        draft.unlink()
    sync_directory(directory)


def _apply(directory: Path, resolution: Resolution) -> None:
    if resolution.csv:
        csv = directory / resolution.csv
        if draft_of(csv).exists():
            _publish(csv)
        elif not csv.exists():
            log_event(logging.WARNING, "ignored", f"{csv} was removed: its windows stay unresolved.")
            return
    for summary in matching(directory, "expired_exams_*.json"):
        _mark(summary, resolution)


def _mark(path: Path, resolution: Resolution) -> None:
    """Mark the windows in a summary, if it lists them."""
    try:
        summary = json.loads(path.read_bytes())
        windows = [window for window in summary["lost"] if not window.get("resolved")]
        lost = [window for window in windows if Period.parse(window["start"], window["end"]) in resolution.windows]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return  # `history` shows that it cannot be read
    for window in lost:
        window["resolved"] = {key: value for key, value in resolution._asdict().items() if key != "windows"}
    if lost:
        write_json(path, summary)


def _write_draft(csv: Path, exams: Iterable[Exam]) -> None:
    write_draft(csv, chain([HEADER], (csv_bytes([exam]) for exam in exams)), like=csv.parent / LOCK)


def _publish(csv: Path) -> None:
    draft_of(csv).replace(csv)
    sync_directory(csv.parent)
