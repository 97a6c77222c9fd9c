"""CSV on a file descriptor: proven writable before anything is expired, durable before the next call."""

import csv
import errno
import logging
import os
from collections.abc import Iterable
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

from app.exceptions import OutputFailed
from app.logs import event
from app.proctor.endpoint import Exam
from app.signals import Interrupted, Stop
from app.streams import is_regular, wait_writable, write_piece


class Report:
    """CSV on a file descriptor, the header first. RFC 4180, UTF-8, CRLF."""

    def __init__(self, descriptor: int, place: str, stop: Stop) -> None:
        """Writes the header; raises OutputFailed where that is not possible."""
        self._descriptor = descriptor
        self.place = place
        self._stop = stop
        try:
            self._durable = is_regular(descriptor)
            self._named = os.fstat(descriptor).st_nlink > 0
            _, problem = self._append(HEADER)
            if problem:
                raise problem
        except OSError as error:
            raise self._failure(error, "Nothing was expired.") from None

    def write(self, exams: Iterable[Exam]) -> None:
        """Write a row an exam; return when they are on disk, or handed over to the reader of a pipe.

        Raises:
            OutputFailed: rows are missing in the CSV; they were sent to the log instead.
        """
        lines = lines_of(exams)
        kept, problem = self._append(b"".join(lines))
        if not problem:
            return
        missing = 0
        for end, line in zip(accumulate(map(len, lines)), lines, strict=True):
            if end > kept:
                missing += 1
                row = line.decode().removesuffix("\r\n")
                event(logging.ERROR, "unwritten_row", f"UNWRITTEN ROW {row}", row=row)
        raise self._failure(
            problem,
            f"No further call is made. Rows that are missing in it: {missing}. They stand in this log, marked UNWRITTEN"
            " ROW: add them to the CSV, no later run reports these exams.",
        )

    def answer_lost(self) -> None:
        """Take note that an answer may be lost."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Bring the output into its final form; raises OutputFailed where that is not possible."""

    def _append(self, data: bytes) -> tuple[int, OSError | Interrupted | None]:
        """Write and make durable. Returns how many bytes are there for good, and what went wrong."""
        done = 0
        try:
            while done < len(data):
                if not wait_writable(self._descriptor, 0):  # only a reader that takes nothing may be given up
                    with self._stop.interruptible(after=2), self._stop.waiting():
                        wait_writable(self._descriptor)
                done += write_piece(self._descriptor, data[done:])
            if self._durable:
                os.fsync(self._descriptor)
                if self._named and not os.fstat(self._descriptor).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, "the file was removed, with all the rows in it")
        except (OSError, Interrupted) as error:
            return done - self._take_back(done), error
        return done, None

    def _take_back(self, done: int) -> int:
        """Remove the bytes written last, so that no row is torn or stands in two places; return how many it were."""
        if not self._durable or not done:
            return 0
        try:
            # Not from where the write began: the position in a file that is appended to is only right after a write.
            start = os.lseek(self._descriptor, -done, os.SEEK_CUR)
            os.ftruncate(self._descriptor, start)
        except OSError:
            return 0
        return done

    def _failure(self, error: OSError | Interrupted, consequence: str) -> OutputFailed:
        what = error.strerror if isinstance(error, OSError) else "a second signal came while nobody read it"
        return OutputFailed(f"The CSV cannot be written to {self.place}: {what}. {consequence}")


def lines_of(rows: Iterable[Iterable[str]]) -> list[bytes]:
    """Rows of a CSV as RFC 4180 has them, in UTF-8. What UTF-8 cannot hold is written as an escape."""
    lines: list[str] = []
    csv.writer(SimpleNamespace(write=lines.append)).writerows(rows)
    return [line.encode("utf-8", "backslashreplace") for line in lines]


HEADER = lines_of([Exam._fields])[0]
