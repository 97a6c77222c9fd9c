"""The real job as a process that is killed, or whose storage fails, at a chosen step of its output.

A step is one call of the program to the operating system, by way of `os`, that changes the output: a file is made, a
piece of the CSV is written, forced to disk, renamed, removed. So also moments are met that last for microseconds:
between the bytes of a row, between a row and the mark behind it, between the summary and the final name.
"""

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

KILLS = ("killed before a step", "killed amid a step", "killed after a step")
FAILURES = {"storage full": errno.ENOSPC, "storage defective": errno.EIO, "storage read-only": errno.EROFS}
_STEPS = ("open", "write", "fsync", "rename", "replace", "unlink", "ftruncate")
_STDERR = 2


@dataclass(frozen=True)
class Ordeal:
    """What happens at step number `at`: a kill, or a failure that lasts from then on."""

    at: int
    what: str


def job(
    settings: dict[str, str], directory: str, stdout: str | None, stderr: str | None, ordeal: Ordeal | None
) -> None:
    """Run the job to its end in this process, its streams led to files in `directory`, or closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(directory)
    for descriptor, name in ((1, stdout), (_STDERR, stderr)):
        if name:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, descriptor)
            os.close(file)
        else:
            os.close(descriptor)

    from app.cli import main
    from app.signals import Stop

    stop = Stop()
    stop.install()
    if ordeal:
        _prepare(ordeal)
    os._exit(main([], stop))


def _prepare(ordeal: Ordeal) -> None:
    steps = count(1)
    for name in _STEPS:
        setattr(os, name, _watched(getattr(os, name), name == "write", steps, ordeal))


def _watched(step: Callable[..., Any], writes: bool, steps: "count[int]", ordeal: Ordeal) -> Callable[..., Any]:
    """The same step, but for what the ordeal does to it."""

    def watched(*arguments: Any, **options: Any) -> Any:
        if arguments[0] == _STDERR or (number := next(steps)) < ordeal.at:
            return step(*arguments, **options)
        first = number == ordeal.at
        if first and ordeal.what in KILLS:
            if writes and ordeal.what == "killed amid a step":
                _write_a_part(step, *arguments)
            elif ordeal.what != "killed before a step":
                step(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        if first and writes:
            return _write_a_part(step, *arguments)
        code = FAILURES[ordeal.what]
        raise OSError(code, os.strerror(code))

    return watched


def _write_a_part(write: Callable[[int, bytes], int], descriptor: int, data: bytes) -> int:
    return write(descriptor, data[: 1 + len(data) // 3])
