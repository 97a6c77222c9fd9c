"""Rows that a run could not write to its CSV, and that are in its log instead, as `app.output.csv_report` puts them."""

import csv
import json
import logging
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from app.logs import log_event
from app.model import STATUSES, Exam, parse_timestamp
from app.recovery.csvs import MalformedRow, as_exam
from app.recovery.texts import lines, source_name

# Other tools put their own words before a line, such as the name of a container.
_TEXT = re.compile(r"(\S+Z) ERROR +UNWRITTEN ROW (.*)")
_AS_JSON = "AS JSON "
_JSON = re.compile(r'\{.*"event"\s*:\s*"unwritten_row".*')
_ANNOUNCED = re.compile("(?<!marked )UNWRITTEN ROW|unwritten_row")  # also within the quotes of another tool


class LogRow(NamedTuple):
    """A row, and when the run logged it."""

    exam: Exam
    at: datetime


class LogRows(NamedTuple):
    """The rows of a log, and how many of its lines announce one that cannot be read."""

    rows: list[LogRow]
    unreadable: int


def read_log(source: Path) -> LogRows:
    """All unwritten rows of a log, text or JSON, of however many runs.

    Raises:
        OutputFailed: the log cannot be read.
    """
    rows: list[LogRow] = []
    unreadable = 0
    for number, line in enumerate(lines(source, "backslashreplace"), 1):
        text, entry = _TEXT.search(line), _JSON.search(line)
        if not _ANNOUNCED.search(line):
            continue
        try:
            if not text and not entry:
                raise MalformedRow("it is not as the run logged it")
            row = _of_text(*text.groups()) if text else _of_json(line[line.index("{") :])
            if not line.endswith("\n") and row.exam.updatedExamStatus not in STATUSES:
                raise MalformedRow("the log ends within its last cell")
            rows.append(row)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, csv.Error) as error:
            unreadable += 1
            log_event(
                logging.ERROR,
                "unreadable_row",
                f"Line {number} of {source_name(source)} has a row that is truncated or changed:"
                f" {_what_is_wrong(error)}.",
            )
    return LogRows(rows, unreadable)


def _of_text(at: str, row: str) -> LogRow:
    row = row.rstrip("\r")
    return _log_row(at, json.loads(row.removeprefix(_AS_JSON)) if row.startswith(_AS_JSON) else row)


def _of_json(text: str) -> LogRow:
    entry = json.loads(text)
    return _log_row(entry["time"], entry["row"])


def _log_row(at: str, row: str) -> LogRow:
    (cells,) = csv.reader([row], strict=True)
    return LogRow(as_exam(cells), parse_timestamp(at))


def _what_is_wrong(error: Exception) -> str:
    """The reason in words that show nothing of the row: the texts of most errors quote it."""
    if isinstance(error, MalformedRow):
        return str(error)
    if isinstance(error, csv.Error):
        return "its quotes are not those of a complete row"
    return "its JSON or its time is incomplete"
