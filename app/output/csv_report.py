"""CSV on a file descriptor: verified as writable before anything is expired, durable before the next call."""

import csv
import errno
import io
import json
import logging
import os
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any

from app.exceptions import OutputFailed
from app.logs import log_event
from app.model import Exam, Moment
from app.signals import SECOND, Interrupted, Stop
from app.streams import PIPE_CHUNK, is_regular, wait_writable


class CsvReport:
    """CSV on a file descriptor, the header first. RFC 4180, UTF-8, CRLF."""

    def __init__(self, descriptor: int, place: str, stop: Stop) -> None:
        self._descriptor = descriptor
        self.place = place
        self._stop = stop
        self._durable = False
        self._named = False

    def open(self) -> None:
        """Write the header.

        Raises:
            OutputFailed: it cannot be written; nothing may be expired.
        """
        try:
            self._durable = is_regular(self._descriptor)
            self._named = os.fstat(self._descriptor).st_nlink > 0
            _, problem = self._append(HEADER)
            if problem:
                raise problem
        except (OSError, Interrupted) as error:
            raise self._failure(error, "Nothing was expired.") from None

    def call_begins(self, began: Moment) -> None:
        """Take note that an expire request is about to be sent; raises OutputFailed where that is not possible."""

    def nothing_changed(self) -> None:
        """Take note that the call has ended and certainly changed no exam."""

    def response_lost(self, at_work: bool) -> None:
        """Take note that the call may have changed exams that are in no CSV, and whether Proctor may go on with it."""

    def write(self, exams: Sequence[Exam]) -> None:
        """Write one row per exam; return when they are on disk, or handed over to the reader of a pipe.

        Raises:
            OutputFailed: rows are missing from the CSV; they were sent to the log instead.
        """
        if not exams:
            return
        kept, problem = self._append(csv_bytes(exams))
        if not problem:
            return
        rows = [csv_bytes([exam]) for exam in exams]
        missing = [row for end, row in zip(accumulate(map(len, rows)), rows, strict=True) if end > kept]
        for row in missing:
            _log_unwritten(row)
        raise self._failure(
            problem,
            f"Rows missing from it: {len(missing)}. They are in this log, marked UNWRITTEN ROW, and no later run"
            " reports these exams: add them as the README describes under 'You were paged'. No further call is made.",
        )

    def close(self) -> None:
        """End the CSV; raises OutputFailed if the system reports only now that it could not be written."""

    def save(self, summary: dict[str, Any]) -> None:
        """Keep the summary with the CSV; raises OutputFailed if that is not possible."""

    def publish(self) -> None:
        """Mark the run as ended, as its last step; raises OutputFailed if that is not possible."""

    def _append(self, data: bytes) -> tuple[int, OSError | Interrupted | None]:
        """Write and make durable. Returns how many bytes are certainly there, and what went wrong."""
        remaining = memoryview(data)
        try:
            while remaining:
                remaining = remaining[self._write(remaining) :]
            if self._durable:
                os.fsync(self._descriptor)
                if self._named and not os.fstat(self._descriptor).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, "the file was removed, with all the rows in it")
        except (OSError, Interrupted) as error:
            written = len(data) - len(remaining)
            if not self._durable:
                return written, error
            # What is not on disk counts as not written, whether or not the file system gives it back.
            self._take_back(written)
            return 0, error
        return len(data), None

    def _write(self, data: memoryview) -> int:
        if self._durable:
            return os.write(self._descriptor, data)
        if not wait_writable(self._descriptor, 0):  # only a reader that takes nothing may be abandoned
            self._stop.wait_writable(self._descriptor, SECOND)
        return os.write(self._descriptor, data[:PIPE_CHUNK])

    def _take_back(self, written: int) -> None:
        """Remove the bytes written last: their rows go to the log, and must not be in the CSV, too, or in part."""
        if not written:
            return
        try:
            # Not from where the write began: the position in a file that is appended to is only right after a write.
            start = os.lseek(self._descriptor, -written, os.SEEK_CUR)
            os.ftruncate(self._descriptor, start)
        except OSError as error:
            log_event(
                logging.WARNING,
                "not_taken_back",
                f"Rows that are marked UNWRITTEN ROW may also be in {self.place}, and its last row may be truncated:"
                f" they cannot be removed there ({error.strerror}).",
            )

    def _failure(self, error: OSError | Interrupted, consequence: str) -> OutputFailed:
        what = error.strerror if isinstance(error, OSError) else "a second signal was received while nothing read it"
        advice = " Free disk space." if isinstance(error, OSError) and error.errno in _FULL else ""
        return OutputFailed(f"The CSV cannot be written to {self.place}: {what}. {consequence}{advice}")


_SPECIAL = ',"\r\n'  # cells with one of these are quoted
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def csv_bytes(rows: Collection[Sequence[str]]) -> bytes:
    """Rows of several cells as RFC 4180 has them, in UTF-8. What UTF-8 cannot hold is written as an escape."""
    cells = "".join(map("".join, rows))
    if any(special in cells for special in _SPECIAL):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        lines = text.getvalue()
    else:  # as good as always, and in a quarter of the time: csv looks at one character after the other
        lines = "".join([",".join(row) + "\r\n" for row in rows])
    return lines.encode("utf-8", "backslashreplace")


HEADER = csv_bytes([Exam._fields])


def _log_unwritten(row: bytes) -> None:
    """Log a row that is in no CSV: as it is if it fits on one line of a log, otherwise as a JSON string."""
    text = row.decode().removesuffix("\r\n")
    shown = text if text.isprintable() else f"AS JSON {json.dumps(text)}"
    log_event(logging.ERROR, "unwritten_row", f"UNWRITTEN ROW {shown}", row=text)
