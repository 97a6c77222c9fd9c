"""The exams that CSVs hold, read as a stream: they may be millions."""

import csv
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from app.exceptions import OutputFailed
from app.logs import log_event
from app.model import Exam
from app.output.files import PARTIAL, matching

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
STUDENT = re.compile(r"-?\d{1,19}")  # a bigint

csv.field_size_limit(2**31 - 1)  # a malformed record may be long, and was written all the same


class MalformedRow(ValueError):
    """What is wrong with a row, without its content, which identifies a student."""


def as_exam(cells: Sequence[str]) -> Exam:
    """The exam in the cells of a row.

    Raises:
        MalformedRow: they are not as many as an exam has.
    """
    if len(cells) != len(Exam._fields):
        raise MalformedRow(f"it has {len(cells)} instead of {len(Exam._fields)} cells")
    return Exam(*cells)


def same_exam(exam: Exam) -> str:
    """What makes an exam the same as another one: its id, or all that is known of an exam without one."""
    return exam.examId.strip().lower() or "\n".join(exam)


def same_row(exam: Exam) -> str:
    """What makes a row the same as another one, where Proctor may have sent several with one id: all but its status.

    A CSV may have no column for that.
    """
    cells = (exam.assessmentKey, exam.assessmentId, exam.examId.lower(), exam.studentId)
    return "\n".join(map(str.strip, cells)) if exam.examId.strip() else same_exam(exam)


def is_well_formed(exam: Exam) -> bool:
    """Whether the exam service can have it. Rows of malformed records are in CSVs, too."""
    return bool(UUID.fullmatch(exam.examId) and STUDENT.fullmatch(exam.studentId))


def csvs_in(directory: Path) -> list[Path]:
    """Every CSV of a directory, also those of runs that are under way or were killed; raises OSError."""
    paths = [*matching(directory, "*.csv"), *matching(directory, f"*.csv{PARTIAL}")]
    return sorted(path for path in paths if path.is_file())


def not_in(csvs: Iterable[Path], exams: Collection[Exam], key: Callable[[Exam], str]) -> list[Exam]:
    """Those of the exams that no CSV has, each once; the same are those of the same key.

    Raises:
        OutputFailed: a CSV cannot be read.
    """
    missing = {key(exam): exam for exam in reversed(list(exams))}
    for path in csvs:
        for exam in exams_of(path):
            missing.pop(key(exam), None)
    return list(reversed(missing.values()))


def exams_of(path: Path) -> Iterator[Exam]:
    """The exams in a CSV, by the names of its columns. A file that does not name them is ignored with a warning.

    Raises:
        OutputFailed: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.reader(_complete_rows(file, at_end=path.suffix != PARTIAL))
            header = next(rows, [])
            if "examId" in header:
                places = [header.index(name) if name in header else len(header) for name in Exam._fields]
                for row in rows:
                    yield Exam(*(row[place] if place < len(row) else "" for place in places))
            elif header:
                log_event(
                    logging.WARNING, "ignored", f"{path} is ignored: its first line does not name the CSV's columns."
                )
    except OSError as error:
        raise OutputFailed(f"{path} cannot be read: {error.strerror}. Nothing was written.") from None
    except csv.Error as error:
        raise OutputFailed(f"{path} is not a CSV that can be read ({error}). Nothing was written.") from None


def first_and_last(path: Path) -> list[Exam]:
    """The exams in a CSV's first and last well-formed rows: fewer where it has fewer, none where it cannot be read."""
    exams: list[Exam] = []
    with suppress(OutputFailed):
        for exam in filter(is_well_formed, exams_of(path)):
            exams[1:] = [exam]
        return exams
    return []


def _complete_rows(file: Iterable[str], at_end: bool) -> Iterator[str]:
    """The rows, each with all lines that it has. What ends within a row counts only where `at_end` says so."""
    row, quotes = [], 0
    for line in file:
        row.append(line)
        quotes += line.count('"')
        if quotes % 2 == 0 and line.endswith("\n"):
            yield "".join(row)
            row.clear()
    if at_end and row:
        yield "".join(row)
