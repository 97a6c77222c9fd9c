"""Without a directory, what was found or logged becomes a CSV on stdout."""

import logging
import os
from pathlib import Path

from app.commands.recover.options import Options
from app.commands.recover.take_found import missing_exams, read_list
from app.commands.recover.take_log import conclude
from app.exceptions import ExitCode, OutputFailed
from app.logs import log_event
from app.model import Exam
from app.output.csv_report import csv_bytes
from app.output.summary import plural
from app.recovery.csvs import not_in, same_row
from app.recovery.log_rows import read_log
from app.signals import FIRST, Stop
from app.streams import is_regular

_STDOUT = 1


def print_found(source: Path, options: Options, stop: Stop) -> int:
    """Print the exams of a list that are in none of the CSVs that the options name."""
    _warn_without_csvs(options)
    found = read_list(source, options, stop)
    windows = [*options.windows, *(asked.window for asked in found.asked)]
    _print_csv(missing_exams(found, windows, options.csvs, stop), stop)
    return ExitCode.OK


def print_log(source: Path, options: Options, stop: Stop) -> int:
    """Print the rows of a log that are in none of the CSVs that the options name."""
    _warn_without_csvs(options)
    with stop.interruptible(FIRST):
        log = read_log(source)
        exams = not_in(options.csvs, [row.exam for row in log.rows], same_row)
    _print_csv(exams, stop)
    return conclude(log, exams)


def _warn_without_csvs(options: Options) -> None:
    if not options.csvs:
        message = "No --csv was given: exams that are already in a CSV are printed again."
        log_event(logging.WARNING, "recovered", message)


def _print_csv(exams: list[Exam], stop: Stop) -> None:
    write_stdout(csv_bytes([Exam._fields, *exams]), stop)
    message = f"Recovered: {plural(len(exams), 'exam')}, in the CSV on stdout."
    log_event(logging.INFO, "recovered", message, exams=len(exams))


def write_stdout(data: bytes, stop: Stop) -> None:
    """Write to stdout, durable where it is a file; a signal ends the wait for whoever reads it.

    Raises:
        OutputFailed: it cannot be written.
        Interrupted: a signal was received.
    """
    remaining = memoryview(data)
    try:
        with stop.interruptible(FIRST):
            while remaining:
                remaining = remaining[os.write(_STDOUT, remaining) :]
            if is_regular(_STDOUT):
                os.fsync(_STDOUT)
    except OSError as error:
        raise OutputFailed(f"stdout cannot be written: {error.strerror}. Do not use what was written.") from None
