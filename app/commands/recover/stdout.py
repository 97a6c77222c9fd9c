"""Without a directory, what was found or logged becomes a CSV on stdout."""

import logging

from app.commands.recover.found import read_list
from app.commands.recover.log import end_of_log
from app.exceptions import ExitCode
from app.logs import log_event
from app.model import Exam
from app.output.csv_report import csv_bytes
from app.recovery.csvs import not_in
from app.recovery.found import verify_time, verify_zone_is_known
from app.recovery.log_rows import read_log
from app.recovery.options import Options
from app.recovery.texts import STDIN, in_words, write_stdout
from app.signals import FIRST, Stop


def to_stdout(options: Options, stop: Stop) -> int:
    """Print the exams of a list, or the rows of a log, that are in none of the CSVs that the options name."""
    if not options.csvs:
        message = "No --csv was given: exams that are already in a CSV are printed again."
        log_event(logging.WARNING, "recovered", message)
    if options.log:
        with stop.interruptible(FIRST):
            log = read_log(options.log)
            exams = not_in(options.csvs, [row.exam for row in log.rows])
        _print_csv(exams)
        return end_of_log(log.rows, exams, log.unreadable)
    found = read_list(options.found or STDIN, options, stop)
    verify_time(found, [*options.windows, *(asked.window for asked in found.asked)])
    with stop.interruptible(FIRST):
        exams = not_in(options.csvs, found.exams.values())
    if not exams and not options.unverified:
        verify_zone_is_known(found)
    _print_csv(exams)
    return ExitCode.OK


def _print_csv(exams: list[Exam]) -> None:
    write_stdout(csv_bytes([Exam._fields, *exams]))
    log_event(logging.INFO, "recovered", f"Recovered: {in_words(exams)}, in the CSV on stdout.", exams=len(exams))
