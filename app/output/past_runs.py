"""The runs of a volume, as their summaries show them."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from app.exceptions import ExitCode, reports_losses
from app.model import Period, Window, parse_timestamp
from app.output.files import matching, partials_in, summary_of
from app.output.lock import is_locked


class LostWindow(NamedTuple):
    """The window of a lost response, and how it was resolved, if it was."""

    period: Period
    reason: str
    resolved: str | None
    csv: str | None = None
    """The name of the CSV with its exams, if it was resolved and had any."""


class PastRun(NamedTuple):
    """A run. What its summary does not say is None."""

    summary: Path
    client_name: str
    started: datetime
    ended: datetime | None
    outcome: str
    exit_code: int | None
    reported: bool
    """Whether its exit code was received, as far as is known."""
    message: str
    expired: int
    completed: int
    unknown: int
    calls: int | None
    lost: list[LostWindow]

    @property
    def exams(self) -> int:
        """How many exams it reported."""
        return self.expired + self.completed + self.unknown

    @property
    def unresolved(self) -> list[LostWindow]:
        """Its windows that are not resolved yet."""
        return [window for window in self.lost if not window.resolved]

    @property
    def ended_well(self) -> bool:
        """Whether it ended with 0, or only lost responses that were recovered since."""
        recovered = self.exit_code == ExitCode.RESPONSES_LOST and bool(self.lost) and not self.unresolved
        return self.exit_code == ExitCode.OK or recovered


Unresolved = dict[Period, tuple[PastRun, LostWindow]]
"""Unresolved windows in order, each once with the first run that has it."""


def past_runs(directory: Path) -> tuple[list[PastRun], list[str]]:
    """All runs that left a summary, oldest first, and a sentence for each summary that cannot be read.

    Raises:
        OSError: the directory cannot be listed.
    """
    runs: list[PastRun] = []
    unreadable: list[str] = []
    for path in matching(directory, "expired_exams_*.json"):
        try:
            runs.append(_past_run(path, json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            unreadable.append(
                f"{path.name} is not a readable summary ({type(error).__name__}), and windows in it go unseen. Make it"
                " readable, or move it away."
            )
    return sorted(runs, key=lambda run: run.started), unreadable


class UnfinishedRun(NamedTuple):
    """A run that is under way, was killed, or has left the rest of its end to the next run."""

    partial: Path
    under_way: bool
    has_summary: bool

    def __str__(self) -> str:
        """What is the matter with it, and what to do, in sentences."""
        if self.under_way:
            return f"{self.partial.name} belongs to a run that is under way."
        return (
            f"{self.partial.name} belongs to a run that was killed, or could not"
            f" {'rename it' if self.has_summary else 'write its summary'}. Run the job again before you recover: that"
            " run cleans up, and reports the window of a lost response, if there is one."
        )


def unfinished_runs(directory: Path) -> list[UnfinishedRun]:
    """The runs whose CSV does not have its final name; raises OSError if the directory cannot be listed."""
    runs = [
        UnfinishedRun(partial, is_locked(partial), summary_of(partial.with_suffix("")).exists())
        for partial in partials_in(directory)
    ]
    return [run for run in runs if run.under_way or run.partial.exists()]  # else the run has just ended


def unresolved_windows(runs: Iterable[PastRun]) -> Unresolved:
    """The windows of these runs that are not resolved yet.

    The window of a killed run is also in the summary of the run after it.
    """
    found: Unresolved = {}
    for run in runs:
        for window in run.unresolved:
            found.setdefault(window.period, (run, window))
    return dict(sorted(found.items()))


def unreported_windows(runs: Iterable[PastRun]) -> list[Window]:
    """The unresolved windows that no exit code has reported for good: those of killed runs that no later one lists."""
    runs = list(runs)
    reported = [run for run in runs if run.reported and reports_losses(run.exit_code)]
    settled = {window.period for run in reported for window in run.lost}
    settled |= {window.period for run in runs for window in run.lost if window.resolved}
    unresolved = unresolved_windows(runs).items()
    return [Window(*period, window.reason) for period, (_, window) in unresolved if period not in settled]


def _past_run(path: Path, summary: dict[str, Any]) -> PastRun:
    ended, code, calls, exams = summary["ended"], summary["exit_code"], summary["calls"], summary["exams"]
    return PastRun(
        summary=path,
        client_name=str(summary["client_name"]),
        started=parse_timestamp(summary["started"]),
        ended=parse_timestamp(ended) if ended else None,
        outcome=str(summary["outcome"]),
        exit_code=None if code is None else int(code),
        reported=bool(summary.get("reported", True)),
        message=str(summary["message"]),
        expired=int(exams["expired"]),
        completed=int(exams["completed"]),
        unknown=int(exams["unknown"]),
        calls=None if calls is None else int(calls),
        lost=[_lost_window(window) for window in summary["lost"]],
    )


def _lost_window(window: dict[str, Any]) -> LostWindow:
    resolved = window.get("resolved")
    return LostWindow(
        Period.parse(window["start"], window["end"]),
        str(window["reason"]),
        str(resolved["how"]) if resolved else None,
        str(csv) if resolved and (csv := resolved.get("csv")) else None,
    )
