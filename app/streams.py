"""Writes to a file descriptor without ever being stuck in the write itself.

A write to a full pipe blocks until somebody reads, and a signal in the middle of it hides how much went out. So wait
until the descriptor takes a chunk, where waiting can be bounded or interrupted, and then hand over no more than that.
"""

import os
import select
import stat
import sys
from contextlib import suppress

PIPE_CHUNK: int = getattr(select, "PIPE_BUF", 512)


def is_regular(descriptor: int) -> bool:
    """Whether the descriptor is a file on a disk, which can be made durable and cut. Raises OSError if it is closed."""
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def wait_writable(descriptor: int, seconds: float | None = None) -> bool:
    """Wait until the descriptor takes a chunk: True, or False if it takes none in that time. None waits for ever."""
    try:
        return bool(select.select([], [descriptor], [], seconds)[1])
    except (OSError, ValueError):  # Windows can wait for sockets alone; elsewhere the write reports what is wrong
        return True


def write_chunk(descriptor: int, data: bytes) -> int:
    """Write as much as can be written without blocking, once `wait_writable` said so; return how many bytes.

    Raises:
        OSError: it cannot be written: the disk is full, or the reader is gone.
    """
    return os.write(descriptor, data if is_regular(descriptor) else data[:PIPE_CHUNK])


def printable(text: str) -> str:
    """The text with its control characters escaped: a server's part of it cannot forge lines or steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_line(line: str) -> None:
    """Print on stdout and ignore errors: it may be piped into `head`, or into a terminal without UTF-8."""
    with suppress(OSError):
        os.write(1, (printable(line) + os.linesep).encode("utf-8", "backslashreplace"))


def occupy_streams() -> None:
    """Where stdout or stderr is closed, let no file or socket get its number: it would be written to."""
    for descriptor, mode in ((1, os.O_RDONLY), (2, os.O_RDWR)):  # to a CSV that goes nowhere, a write must fail
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, mode)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # argparse writes there
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process lives
