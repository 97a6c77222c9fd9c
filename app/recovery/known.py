"""Exams by which the time zone of the database can be verified: they were certainly changed within a run."""

from collections.abc import Collection, Iterator

from app.model import Period
from app.output.files import csv_of
from app.output.past_runs import PastRun
from app.recovery.csvs import first_exam
from app.recovery.query import KnownExam


def known_exams(runs: Collection[PastRun], windows: Collection[Period]) -> list[KnownExam]:
    """For each window an exam of the run nearest to it that has one; none where no run has."""
    return list(dict.fromkeys(exam for window in windows if (exam := _nearest(runs, window))))


def _nearest(runs: Collection[PastRun], window: Period) -> KnownExam | None:
    by_distance = sorted(runs, key=lambda run: abs(run.started - window.start))
    return next(_known(by_distance), None)


def _known(runs: Collection[PastRun]) -> Iterator[KnownExam]:
    for run in runs:
        ended = run.ended or max((window.period.end for window in run.lost), default=None)
        exam = first_exam(csv_of(run.summary))
        # Where the clock was put back between them, neither of the two shows when an exam was changed.
        if exam and ended and ended >= run.started:
            yield KnownExam(exam.examId, Period(run.started, ended))
