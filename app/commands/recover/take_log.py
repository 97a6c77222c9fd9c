"""Rows that are only in a log become a CSV."""

import logging
from pathlib import Path

from app.commands.recover.held import held
from app.commands.recover.options import Options
from app.exceptions import ExitCode, UnexpectedResponse
from app.logs import log_event
from app.model import Exam, Period
from app.output.files import starts_of_runs, stem_of_run, unused_csv
from app.output.past_runs import past_runs
from app.output.summary import plural
from app.recovery.candidates import candidates
from app.recovery.csvs import csvs_in, not_in, same_row
from app.recovery.log_rows import LogRow, LogRows, read_log
from app.recovery.resolution import write_csv
from app.recovery.windows import warn_of_unreported
from app.signals import FIRST, Stop


def take_log(directory: Path, source: Path, options: Options, stop: Stop) -> int:
    """Write the rows of a log that are in no CSV to one for each run."""
    with stop.interruptible(FIRST):
        log = read_log(source)
    with held(directory):
        with stop.interruptible(FIRST):
            missing = _missing(directory, log.rows, options)
        for stem, rows in missing.items():
            csv = unused_csv(directory, f"{stem}_from_log")
            write_csv(csv, rows)
            message = f"Recovered from the log: {plural(len(rows), 'exam')}, in {csv.name}."
            log_event(logging.INFO, "recovered", message, csv=csv.name, exams=len(rows))
        warn_of_unreported(directory)
    return conclude(log, [exam for rows in missing.values() for exam in rows])


def _missing(directory: Path, rows: list[LogRow], options: Options) -> dict[str, list[Exam]]:
    """The exams of each run that none of its CSVs has, by the stem of its files; raises OutputFailed and OSError."""
    runs, _ = past_runs(directory)
    starts, all_csvs = starts_of_runs(directory), csvs_in(directory)
    by_run: dict[str, list[LogRow]] = {}
    for row in rows:
        by_run.setdefault(stem_of_run(starts, row.at), []).append(row)
    missing: dict[str, list[Exam]] = {}
    for stem, own in by_run.items():
        csvs = candidates(all_csvs, runs, [Period(min(row.at for row in own), max(row.at for row in own))])
        same = [csv for csv in all_csvs if csv.name.startswith(f"{stem}_from_log")]  # of any time
        if exams := not_in({*csvs, *same, *options.csvs}, [row.exam for row in own], same_row):
            missing[stem] = exams
    return missing


def conclude(log: LogRows, recovered: list[Exam]) -> int:
    """The exit code once the rows are recovered; raises UnexpectedResponse if some of the log cannot be read."""
    if not log.rows and not log.unreadable:
        log_event(logging.INFO, "recovered", "Nothing to recover: the log has no unwritten row.")
    elif log.rows and not recovered:
        message = f"Nothing to recover: each of the log's unwritten rows ({len(log.rows):,}) is already in a CSV."
        log_event(logging.INFO, "recovered", message)
    if log.unreadable:
        raise UnexpectedResponse(
            f"Rows of the log that cannot be read: {log.unreadable}, see above; all others are in a CSV. Recover these"
            " exams by the window of that run, or add the rows by hand."
        )
    return ExitCode.OK
