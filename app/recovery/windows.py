"""The unresolved windows of the runs on a volume."""

import logging
from pathlib import Path

from app.logs import log_event, timestamp
from app.output.past_runs import LostWindow, PastRun, past_runs, unresolved
from app.recovery.query import Period

Unresolved = dict[Period, tuple[PastRun, LostWindow]]
"""Windows in order, each with the first run that has it."""


def read_runs(directory: Path) -> tuple[list[PastRun], Unresolved]:
    """The runs of a directory, oldest first, and their unresolved windows; logs where there are none."""
    runs, unreadable = past_runs(directory)
    for sentence in unreadable:
        log_event(logging.WARNING, "ignored", sentence)
    windows = {Period(window.start, window.end): (run, window) for run, window in unresolved(runs)}
    if not windows:
        log_event(logging.INFO, "resolved", "No window is unresolved: there is nothing to recover.")
    return runs, windows


def shown(window: Period) -> str:
    """A window in a sentence."""
    return f"exams that Proctor changed from {timestamp(window.start)} to {timestamp(window.end)}"


def bounds(window: Period) -> dict[str, str]:
    """A window as the fields of a log event."""
    return {"start": timestamp(window.start), "end": timestamp(window.end)}
