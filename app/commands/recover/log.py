"""Rows that are only in a log become a CSV."""

import logging
from pathlib import Path

from app.commands.recover.held import held
from app.exceptions import ExitCode, UnexpectedResponse
from app.logs import log_event
from app.model import Exam
from app.output.files import stem_of_run, unused_csv
from app.recovery.csvs import csvs_in, not_in
from app.recovery.log_rows import LogRow, read_log
from app.recovery.options import Options
from app.recovery.resolution import write_csv
from app.recovery.texts import in_words
from app.recovery.windows import warn_of_unreported
from app.signals import FIRST, Stop


def take_log(directory: Path, source: Path, options: Options, stop: Stop) -> int:
    """Write the rows of a log that are in no CSV to one for each run."""
    with stop.interruptible(FIRST):
        log = read_log(source)
    with held(directory):
        with stop.interruptible(FIRST):
            exams = not_in([*csvs_in(directory), *options.csvs], [row.exam for row in log.rows])
        missing, by_run = set(exams), dict[str, list[Exam]]()
        for row in log.rows:
            if row.exam in missing:
                missing.remove(row.exam)
                by_run.setdefault(stem_of_run(directory, row.at), []).append(row.exam)
        for stem, rows in by_run.items():
            csv = unused_csv(directory, f"{stem}_from_log")
            write_csv(csv, rows)
            message = f"Recovered from the log: {in_words(rows)}, in {csv.name}."
            log_event(logging.INFO, "recovered", message, csv=csv.name, exams=len(rows))
        warn_of_unreported(directory)
    return end_of_log(log.rows, exams, log.unreadable)


def end_of_log(rows: list[LogRow], exams: list[Exam], unreadable: int) -> int:
    """The exit code once the rows are written; raises UnexpectedResponse if some of the log are unreadable."""
    if not exams:
        message = f"Nothing to recover: each of the log's unwritten rows ({len(rows):,}) is already in a CSV."
        log_event(logging.INFO, "recovered", message)
    if unreadable:
        raise UnexpectedResponse(
            f"Rows of the log that cannot be read: {unreadable}, see above; all others are in a CSV. Recover these"
            " exams by the window of that run, or add the rows by hand."
        )
    return ExitCode.OK
