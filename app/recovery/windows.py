"""The unresolved windows of the runs on a volume."""

import logging
from pathlib import Path

from app.exceptions import OutputFailed, TooEarly
from app.logs import log_event
from app.output.past_runs import PastRun, Unresolved, past_runs, unfinished_runs, unresolved_windows


def read_runs(directory: Path) -> tuple[list[PastRun], Unresolved]:
    """The runs of a directory, oldest first, and their unresolved windows; logs where there are none.

    Raises:
        OutputFailed: there are none, but a summary that cannot be read may list one, or no run has left a summary.
        TooEarly: there are none, but a run under way, or the next run, may report one.
        OSError: the directory cannot be listed.
    """
    runs, unreadable = past_runs(directory)
    for sentence in unreadable:
        log_event(logging.WARNING, "ignored", sentence)
    windows = unresolved_windows(runs)
    if not windows:
        if unreadable:
            raise OutputFailed("No other window is unresolved. Do that, then run the same command again.")
        if any(run.under_way for run in unfinished_runs(directory)):
            raise TooEarly("A run is under way. What it has lost is known when it has ended: do this again then.")
        if unreported := _unreported(directory):
            raise TooEarly(unreported)
        if not runs:
            raise OutputFailed(f"There is no summary of a run in {directory}. Give the OUTPUT_DIR of the runs.")
        log_event(logging.INFO, "resolved", "No window is unresolved: there is nothing to recover.")
    return runs, windows


def warn_of_unreported(directory: Path) -> None:
    """Log a warning if the next run may report a window."""
    if unreported := _unreported(directory):
        log_event(logging.WARNING, "killed_run", unreported)


def _unreported(directory: Path) -> str:
    """Sentences about the runs whose windows only the next run reports; empty where there is none."""
    return " ".join(str(run) for run in unfinished_runs(directory) if not run.under_way and not run.has_summary)
