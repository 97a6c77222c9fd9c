"""Exams by which the time zone of the database can be verified: they were certainly changed within a run."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from app.model import Exam, Period
from app.output.files import csv_of
from app.output.past_runs import PastRun
from app.recovery.csvs import first_and_last
from app.recovery.query import KnownExam


def known_exams(runs: Collection[PastRun], windows: Collection[Period]) -> list[KnownExam]:
    """For each window the first and the last exam of the run nearest to it that has one; none where no run has.

    Both, as in a long run a single one may seem to be within it by the time of another zone.
    """
    read = cache(first_and_last)  # millions of rows, and once for each window
    return list(dict.fromkeys(exam for window in windows for exam in _nearest(runs, window, read)))


def _nearest(runs: Collection[PastRun], window: Period, read: Callable[[Path], list[Exam]]) -> list[KnownExam]:
    for run in sorted(runs, key=lambda run: abs(run.started - window.start)):
        exams = read(csv_of(run.summary))
        ended = (run.ended or _last_write(run)) if exams else None
        # Where the clock was put back between them, neither of the two shows when an exam was changed.
        if ended and ended >= run.started:
            return [KnownExam(exam.examId, Period(run.started, ended)) for exam in exams]
    return []


def _last_write(run: PastRun) -> datetime | None:
    """By when a killed run had written its CSV: its windows may end long after that, with the start of the next run."""
    latest = max((window.period.end for window in run.lost), default=None)
    written = datetime.fromtimestamp(csv_of(run.summary).stat().st_mtime, UTC)
    return written if latest and run.started <= written < latest else latest
