"""The directory, held while it is changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.exceptions import OutputFailed
from app.output.files import give_to_owner_of
from app.output.lock import LOCK, Lock
from app.output.volume import unusable
from app.recovery.resolution import finish


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the lock on the directory, so that no run changes it, and finish an earlier recovery that was killed.

    Not to be held while stdin is read: a query may take long, and no run can start.
    """
    try:
        is_new = not (directory / LOCK).exists()
        lock = Lock(directory)
        if is_new:
            give_to_owner_of(directory, directory / LOCK)
        try:
            finish(directory)
            yield
        finally:
            lock.release()
    except OSError as error:
        raise OutputFailed(f"Once this is fixed, run the same command again: {unusable(directory, error)}") from None
