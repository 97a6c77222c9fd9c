"""The result of the query, as `mysql -N`, `mysql --batch`, or the CSV export of another client gives it."""

import csv
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from app.exceptions import TooEarly, UnexpectedResponse
from app.model import STATUSES, Exam, Period, timestamp
from app.recovery.csvs import STUDENT, UUID, MalformedRow, as_exam
from app.recovery.query import ASKED_WINDOW, KNOWN_EXAM
from app.recovery.texts import lines, source_name
from app.recovery.zones import Zone, parse_zone, readings

_HEADERS = (("assessment_key", "assessment_id", "id", "student_id", "status"), tuple(map(str.lower, Exam._fields)))
_ESCAPES = {"t": "\t", "n": "\n", "0": "\0", "\\": "\\"}
_BLANK = " \r\n"  # but not tabs, between which cells may be empty
_DAY = 24 * 60  # minutes
_NOTHING_DONE = "Nothing was written or marked as resolved."


class Asked(NamedTuple):
    """A window that the query asked for, in which time zone of the database, and when, by the database's clock."""

    window: Period
    zone: Zone
    at: datetime


class Changes(NamedTuple):
    """When, by the database, an exam was changed that Proctor reported within a period."""

    exam_id: str
    period: Period
    times: list[datetime]


class Found(NamedTuple):
    """The exams by their ids in lower case, and what the query reports of itself."""

    exams: dict[str, Exam]
    asked: list[Asked]
    known: list[Changes]


def read_found(source: Path, *, trust_zone: bool) -> Found:
    """Read the result of the query, which must be complete, and of the right time zone.

    `trust_zone`: it is the right one, although the query had no exam by which that can be verified.

    Raises:
        OutputFailed: it cannot be read.
        UnexpectedResponse: it is not; says why, and that nothing was done.
    """
    found = _read(source)
    if not found.asked:
        raise _incomplete(source, "not the complete result of the query" if found.exams else "empty")
    zone = found.asked[0].zone
    for exam in found.known:
        _verify_zone(exam, zone, found.known)
    if not found.known and not trust_zone:  # with a wrong one, exams of another time are found, or none
        raise UnexpectedResponse(
            "The query had no exam with which to verify the time zone. Make sure that --database-zone was right, then"
            f" pass the same list with --trust-zone. {_NOTHING_DONE}"
        )
    return found


def read_unverified(source: Path) -> Found:
    """Read a list of exams in the columns of the query, from elsewhere or a result of the query.

    Raises:
        OutputFailed: it cannot be read.
        UnexpectedResponse: it is empty, or the query returned it, and it is not complete.
    """
    found = _read(source)
    if not found.exams and not found.asked:
        raise UnexpectedResponse(
            f"{source_name(source)} is empty, as it is where a client failed. If it is known that nothing was lost, use"
            f" --acknowledge. {_NOTHING_DONE}"
        )
    return found


def _incomplete(source: Path, what: str) -> UnexpectedResponse:
    return UnexpectedResponse(
        f"{source_name(source)} is {what}: even where no exam was lost, the result ends with a row '{ASKED_WINDOW}'."
        f" Check whether the client failed, or limits or sorts the rows. {_NOTHING_DONE}"
    )


def _read(source: Path) -> Found:
    """Read a list of exams in the columns of the query.

    Raises:
        OutputFailed: it cannot be read.
        UnexpectedResponse: it has a row that the query does not return, or only some of the query's own.
    """
    exams: dict[str, Exam] = {}
    asked: list[Asked] = []
    known: list[Changes] = []
    is_result = False
    for index, (line, cells) in enumerate(_rows(source)):
        if index == 0 and tuple(cell.lower() for cell in cells) in _HEADERS:
            continue
        try:
            row = as_exam(cells)
            if cells[0] == ASKED_WINDOW:
                _, start, end, zone, at = row
                is_result = True
                asked.append(Asked(Period.parse(start, end), parse_zone(zone), _time(at).replace(tzinfo=UTC)))
            elif cells[0] == KNOWN_EXAM:
                _, start, exam_id, end, times = row
                is_result = True
                known.append(Changes(exam_id, Period.parse(start, end), _times(times)))
            else:
                _verify_exam(row)
                exams.setdefault(row.examId.lower(), row)
                asked.clear()  # only at the end of the result they show that it is complete
        except (ValueError, OverflowError) as error:
            of_time = f"a time or the time zone in the row '{cells[0]}' cannot be read"
            reason = error if isinstance(error, MalformedRow) else of_time
            raise UnexpectedResponse(
                f"Line {line} of {source_name(source)} is not a row that the query returns: {reason}. {_NOTHING_DONE}"
            ) from None
    if is_result and not asked:
        raise _incomplete(source, "not the complete result of the query")
    return Found(exams, asked, known)


def verify_time(found: Found, windows: Collection[Period]) -> None:
    """Make sure that no window could get further exams when the query was run, by the clock that the database has.

    Raises:
        TooEarly: one could.
    """
    latest = max((window.end for window in windows), default=datetime.min.replace(tzinfo=UTC))
    if min((asked.at for asked in found.asked), default=datetime.now(UTC)) < latest:
        raise TooEarly(
            f"The query was run too early: Proctor may be working until {timestamp(latest)}. Run it again after that."
            f" {_NOTHING_DONE}"
        )


def _rows(source: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, after the number of the line on which it begins.

    Tabs separate the cells of the client `mysql`, which escapes what is within one.
    """
    text = enumerate(lines(source), 1)
    begins, first = next((numbered for numbered in text if numbered[1].strip(_BLANK)), (1, ""))
    if "\t" in first:
        for number, line in chain([(begins, first)], text):
            if line.strip(_BLANK):
                yield number, [_unescaped(cell) for cell in line.rstrip("\r\n").split("\t")]
        return
    rest = chain([first], (line for _, line in text))
    rows = csv.reader(rest, delimiter=";" if first.count(";") >= 4 else ",")
    before = begins - 1
    try:
        for cells in rows:
            if len(cells) > 1 or "".join(cells).strip():  # else the line is blank
                yield begins, cells
            begins = before + rows.line_num + 1
    except csv.Error as error:
        raise UnexpectedResponse(f"{source_name(source)} is not a CSV ({error}). {_NOTHING_DONE}") from None


def _unescaped(cell: str) -> str:
    return re.sub(r"\\([tn0\\])", lambda escape: _ESCAPES[escape[1]], cell)


def _verify_exam(exam: Exam) -> None:
    """Raises MalformedRow if the exam service cannot have it."""
    if not UUID.fullmatch(exam.examId):
        raise MalformedRow("its third cell is not the id of an exam")
    if not STUDENT.fullmatch(exam.studentId):
        raise MalformedRow("its fourth cell is not the id of a student")
    if exam.updatedExamStatus not in STATUSES:
        raise MalformedRow(f"its fifth cell is not {' or '.join(STATUSES)}")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)


def _times(text: str) -> list[datetime]:
    return [] if text in ("", "NULL", "null", r"\N") else [_time(time) for time in text.split(",")]


def _verify_zone(exam: Changes, zone: Zone, known: list[Changes]) -> None:
    """Make sure that the database has an exam that Proctor reported, and at the right time."""
    if _fits(exam, zone):
        return
    start, end = exam.period
    reported = f"Proctor reported exam {exam.exam_id} between {timestamp(start)} and {timestamp(end)}"
    if not exam.times:
        raise UnexpectedResponse(
            f"{reported}, but the database has no such change: it belongs to another Proctor, or no longer has data"
            f" from that time. {_NOTHING_DONE}"
        )
    changed = exam.times[-1]
    raise UnexpectedResponse(
        f"The time zone is not {zone.name}: {reported}, but the database has that change at {changed}. Print the query"
        f" again with --database-zone={_likely_offset(exam, known)}, or the name of the zone. {_NOTHING_DONE}"
    )


def _fits(exam: Changes, zone: Zone) -> bool:
    """Whether an exam was changed within its period, if the database has its times in this zone."""
    earliest, latest = readings(*exam.period, zone)
    return any(earliest <= time <= latest for time in exam.times)


def _likely_offset(exam: Changes, known: list[Changes]) -> str:
    """The offset that explains the time of a change, if possible of all: in quarters of an hour, as in zones.

    Of several, it is the one by which the change was soonest after the start of its run. Where no quarter explains it,
    a clock is wrong, and of several minutes the one in their middle is likeliest.
    """
    if quarters := _offsets_that_fit(known, 15):
        return quarters[0]
    if minutes := _offsets_that_fit(known, 1):
        return minutes[len(minutes) // 2]
    if quarters := _offsets_that_fit([exam], 15):
        return quarters[0]
    start, end = exam.period
    return _offset(round((exam.times[-1].replace(tzinfo=UTC) - start - (end - start) / 2) / timedelta(minutes=1)))


def _offsets_that_fit(exams: list[Changes], step: int) -> list[str]:
    """The offsets in steps of so many minutes that explain the times of all these changes, the highest one first."""
    offsets = map(_offset, range(_DAY - step, -_DAY, -step))
    return [offset for offset in offsets if all(_fits(exam, parse_zone(offset)) for exam in exams)]


def _offset(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
