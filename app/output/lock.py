"""One run at a time on a volume, and a record there of what would be unknown after a kill.

The lock is released by the system when its process ends, however that ends. The record, in the lock file, says since
when exams may be missing from the CSV of the run under way, and since when Proctor may be at work for it.
"""

import errno
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from app.exceptions import Busy
from app.model import Moment, parse_timestamp, timestamp
from app.output.files import opener

LOCK = ".lock"

_LONGEST_RECORD = 4096  # bytes
_LONGEST = 1000 * 365 * 86_400.0  # seconds
# On Windows, locked bytes cannot be read, so the locked byte lies far beyond any content.
_LOCKED_BYTE = 1 << 40


class Record(NamedTuple):
    """What the run that writes `csv` knows of its calls.

    Every exam that was reported to it before `since` is in the CSV. `unreported` says whether a call that began then,
    or one after it, may have changed exams that are not. `last_call` is when the call began that Proctor may still be
    at work on, or when its response was lost; `longest_call` is how many seconds it may take from then on. `last_lost`
    is when the last call began whose response was lost.
    """

    csv: str
    since: Moment
    unreported: bool
    last_call: Moment | None
    longest_call: float
    last_lost: Moment | None = None

    def to_line(self) -> bytes:
        """The record as one line of JSON."""
        content = {
            name: _moment_out(value) if isinstance(value, Moment) else value for name, value in self._asdict().items()
        }
        return (json.dumps(content) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """The record that a line holds; None where it holds none."""
        try:
            content = json.loads(line)
            last_call, last_lost = content["last_call"], content["last_lost"]
            return cls(
                str(content["csv"]),
                _moment_in(content["since"]),
                bool(content["unreported"]),
                None if last_call is None else _moment_in(last_call),
                _plausible(float(content["longest_call"])),
                None if last_lost is None else _moment_in(last_lost),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None


def _moment_out(moment: Moment) -> list[Any]:
    return [timestamp(moment.wall), moment.monotonic, moment.boot]


def _moment_in(content: list[Any]) -> Moment:
    wall, monotonic, boot = content
    moment = Moment(parse_timestamp(wall), float(monotonic), str(boot))
    _plausible(abs(moment.wall.timestamp()))
    _plausible(abs(moment.monotonic))
    return moment


def _plausible(seconds: float) -> float:
    """The same number; ValueError where no run can have written it, and no window could be given for it."""
    if not 0 <= seconds <= _LONGEST:
        raise ValueError
    return seconds


class Lock:
    """Held on a volume as long as the process lives."""

    def __init__(self, directory: Path) -> None:
        """Takes the lock.

        Raises:
            Busy: another run has it.
            OSError: the lock file cannot be opened.
        """
        self._file = open(directory / LOCK, "r+b", buffering=0, opener=opener)  # noqa: SIM115 - held until the process ends
        if not try_lock(self._file.fileno()):
            self._file.close()
            raise busy(directory)

    def release(self) -> None:
        with suppress(OSError):
            self._file.close()

    def read(self) -> Record | None:
        """The record of the last run; None where there is none that can be read."""
        self._file.seek(0)
        return Record.from_line(self._file.read(_LONGEST_RECORD).partition(b"\n")[0])

    def write(self, record: Record) -> None:
        """Replace the record.

        Raises:
            OSError: it could not be written completely. A call that it announces must not be made.
        """
        line = record.to_line()
        self._file.seek(0)
        if self._file.write(line) != len(line):
            raise OSError(errno.EIO, os.strerror(errno.EIO), LOCK)


def busy(directory: Path) -> Busy:
    """The failure of a second run."""
    return Busy(f"Another run is under way on OUTPUT_DIR {str(directory)!r}. Wait until it has finished.")


def is_locked(path: Path) -> bool:
    """Whether a run that is under way holds a file."""
    try:
        with path.open("rb") as file:
            return not try_lock(file.fileno())
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False where another process has it."""
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False where another process has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
