"""The runs of a volume as a table, newest last, and whether the last one of each client went well."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from app.exceptions import ExitCode
from app.logs import parse_timestamp
from app.output.files import name_in_files
from app.streams import print_line

_COLUMNS = "{:<16}  {:<{}}  {:<11} {:>4} {:>8} {:>9} {:>7} {:>6} {:>4} {:>8}  {}"
_BAR = 30


class Night(NamedTuple):
    """A run, as its summary tells it. What a summary does not tell is None."""

    client_name: str
    started: datetime
    ended: datetime | None
    outcome: str
    exit_code: int | None
    message: str
    expired: int
    completed: int
    unknown: int
    calls: int | None
    lost: list[str]

    @property
    def exams(self) -> int:
        return self.expired + self.completed + self.unknown


def history(directory: Path, max_age: timedelta | None) -> int:
    """Print the table; return 0 if each client's last run ended well, and no longer than `max_age` ago, else 1."""
    nights = sorted(_nights(directory), key=lambda night: night.started)
    if not nights:
        print_line(f"No run has left its summary in {directory}.")
        return ExitCode.LAST_RUN_FAILED
    width = max(len(night.client_name) for night in nights)
    most = max(night.exams for night in nights) or 1
    titles = ("outcome", "code", "expired", "completed", "unknown", "calls", "lost", "time", "exams")
    print_line(_COLUMNS.format("started (UTC)", "client", max(width, 6), *titles))
    for night in nights:
        bar = "#" * -(-night.exams * _BAR // most)
        print_line(_COLUMNS.format(*_cells(night, max(width, 6)), bar).rstrip())
    for window in dict.fromkeys(window for night in nights for window in night.lost):
        print_line(f"Exams may be in no CSV that Proctor changed from {window}.")
    for partial in directory.glob("expired_exams_*.csv.partial"):
        print_line(
            f"{partial.name} is of a run that is under way, or was killed: then the next run tells what may be lost."
        )
    newest = {name_in_files(night.client_name): night for night in nights}  # as a killed run's summary has it
    problems = [problem for night in newest.values() if (problem := _problem(night, max_age))]
    for problem in problems:
        print_line(problem)
    return ExitCode.LAST_RUN_FAILED if problems else ExitCode.OK


def _nights(directory: Path) -> Iterator[Night]:
    for path in directory.glob("expired_exams_*.json"):
        try:
            yield _night(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            print_line(f"{path.name} is left out, as it is no summary that can be read ({type(error).__name__}).")


def _night(summary: dict[str, Any]) -> Night:
    ended, code, calls, exams = summary["ended"], summary["exit_code"], summary["calls"], summary["exams"]
    return Night(
        client_name=str(summary["client_name"]),
        started=parse_timestamp(summary["started"]),
        ended=parse_timestamp(ended) if ended else None,
        outcome=str(summary["outcome"]),
        exit_code=None if code is None else int(code),
        message=str(summary["message"]),
        expired=int(exams["expired"]),
        completed=int(exams["completed"]),
        unknown=int(exams["unknown"]),
        calls=None if calls is None else int(calls),
        lost=[_window(window["start"], window["end"], str(window["reason"])) for window in summary["lost"]],
    )


def _window(start: str, end: str, reason: str) -> str:
    return f"{parse_timestamp(start):%Y-%m-%d %H:%M:%S.%f} to {parse_timestamp(end):%Y-%m-%d %H:%M:%S.%f} ({reason})"


def _cells(night: Night, width: int) -> tuple[object, ...]:
    return (
        f"{night.started:%Y-%m-%d %H:%M}",
        night.client_name,
        width,
        night.outcome,
        _told(night.exit_code),
        night.expired,
        night.completed,
        night.unknown,
        _told(night.calls),
        len(night.lost),
        _told(night.ended and str(timedelta(seconds=round((night.ended - night.started).total_seconds())))),
    )


def _told(value: object) -> object:
    return "-" if value is None else value


def _problem(night: Night, max_age: timedelta | None) -> str | None:
    if night.exit_code != ExitCode.OK:
        how = "was killed" if night.exit_code is None else f"ended with exit code {night.exit_code}"
        return f"The last run for {night.client_name} {how}. {night.message}"
    age = datetime.now(UTC) - (night.ended or night.started)
    if max_age is not None and age > max_age:
        return (
            f"The last run for {night.client_name} ended {age / timedelta(hours=1):,.1f} hours ago, more than the"
            f" {max_age / timedelta(hours=1):g} of --max-age. Look why the scheduler started none since."
        )
    return None
