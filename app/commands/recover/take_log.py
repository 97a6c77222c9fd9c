"""Rows that are only in a log become a CSV."""

import logging
from pathlib import Path

from app.commands.recover.held import held
from app.commands.recover.options import Options
from app.exceptions import ExitCode, UnexpectedResponse
from app.logs import log_event
from app.model import Exam
from app.output.files import stem_of_run, unused_csv
from app.output.summary import plural
from app.recovery.csvs import csvs_in, not_in
from app.recovery.log_rows import LogRows, read_log
from app.recovery.resolution import write_csv
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
            message = f"Recovered from the log: {plural(len(rows), 'exam')}, in {csv.name}."
            log_event(logging.INFO, "recovered", message, csv=csv.name, exams=len(rows))
        warn_of_unreported(directory)
    return conclude(log, exams)


def conclude(log: LogRows, recovered: list[Exam]) -> int:
    """The exit code once the rows are recovered; raises UnexpectedResponse if some of the log cannot be read."""
    if not recovered:
        message = f"Nothing to recover: each of the log's unwritten rows ({len(log.rows):,}) is already in a CSV."
        log_event(logging.INFO, "recovered", message)
    if log.unreadable:
        raise UnexpectedResponse(
            f"Rows of the log that cannot be read: {log.unreadable}, see above; all others are in a CSV. Recover these"
            " exams by the window of that run, or add the rows by hand."
        )
    return ExitCode.OK
