"""One run at a time on a volume: the lock, which the system releases when its process ends, however that ends."""

import errno
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.exceptions import Busy
from app.output.files import opener, partials_in
from app.output.record import Record

LOCK = ".lock"

_LONGEST_RECORD = 4096  # bytes
_PAUSE = 0.01  # seconds
# On Windows, locked bytes cannot be read, so the locked byte lies far beyond any content.
_LOCKED_BYTE = 1 << 40


class Lock:
    """Held on a volume as long as the process lives."""

    def __init__(self, directory: Path, patience: float = 0, sleep: Callable[[float], None] = time.sleep) -> None:
        """Takes the lock; waits so many seconds for it while `recover` has it, or a run that has no CSV.

        Raises:
            Busy: it is held.
            OSError: the lock file cannot be opened.
        """
        self._file = open(directory / LOCK, "r+b", buffering=0, opener=opener)  # noqa: SIM115 - held until the process ends
        if not lock_within(patience, self._file.fileno(), sleep, give_up=lambda: _run_under_way(directory)):
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
    """The failure of whoever needs a directory that somebody else holds."""
    what = (
        "Another run is under way on OUTPUT_DIR"
        if _run_under_way(directory)
        else "A recovery, or the beginning or end of another run, is under way on OUTPUT_DIR"
    )
    return Busy(f"{what} {str(directory)!r}. Wait until it has finished.")


def _run_under_way(directory: Path) -> bool:
    return any(map(is_locked, partials_in(directory)))


def is_locked(path: Path) -> bool:
    """Whether a run that is under way holds a file."""
    try:
        with path.open("rb") as file:
            return not try_lock(file.fileno(), shared=True)  # over NFS, the only lock on a file open for reading alone
    except OSError:
        return False


def lock_within(
    seconds: float,
    descriptor: int,
    sleep: Callable[[float], None] = time.sleep,
    give_up: Callable[[], bool] = lambda: False,
) -> bool:
    """As `try_lock`, again and again for so long, or until `give_up` says so.

    Whoever only wants to see whether a file is locked locks it for a moment, too.
    """
    deadline = time.monotonic() + seconds
    while not try_lock(descriptor):
        if time.monotonic() >= deadline or give_up():
            return False
        sleep(_PAUSE)
    return True


if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int, *, shared: bool = False) -> bool:  # noqa: ARG001 - it has no other kind
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

    def try_lock(descriptor: int, *, shared: bool = False) -> bool:
        """Lock an open file until it is closed, alone or with others; False where another process has it."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
