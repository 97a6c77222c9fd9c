"""Turns SIGTERM, SIGINT and SIGHUP into an orderly end.

A first signal asks the run to end after the call under way; a second one ends that call as well. A signal is counted
when it is received, and noticed in a wait: `sleep`, `wait_readable` and `wait_writable` also watch a socket that the
system writes to at each signal, so none can slip in between a look at the count and the wait. Each wait names the
signal that ends it, the first or the second.
Imports nothing slow: as PID 1 of a container the process ignores SIGTERM until `install` has been called.
"""

import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from app.streams import occupy_streams

FIRST = 1
SECOND = 2

_NEVER = float("inf")
_LONGEST_SELECT = 86_400.0  # seconds


class Interrupted(BaseException):
    """A signal ended what was under way. Not an `Exception`: nothing but the end of the run may swallow it."""


class Stop:
    """The signals received so far."""

    def __init__(self) -> None:
        self.signum: int | None = None
        """The number of the first signal."""
        self.on_first: Callable[[int], None] = lambda _: None
        """Called with the first signal's number, between any two steps of the program."""
        self._received = 0
        self._raise_at = _NEVER
        self._wakeups: list[socket.socket] = []

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and, unless `nohup` has it ignored, SIGHUP, where they exist. Main thread only."""
        occupy_streams()  # or the sockets get the numbers of a closed stdout and stderr, and the CSV goes to them
        self._wakeups = list(socket.socketpair())
        for end in self._wakeups:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeups[1].fileno(), warn_on_full_buffer=False)
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, signum: int, _frame: object) -> None:
        self._received += 1
        if self.signum is None:
            self.signum = signum
            raise_at, self._raise_at = self._raise_at, _NEVER  # nothing may interrupt what is called here
            self.on_first(signum)
            self._raise_at = raise_at
        if self._received >= self._raise_at:
            self._raise_at = _NEVER
            raise Interrupted

    def check(self, ended_by: int = FIRST) -> None:
        """Raise `Interrupted` if that signal has been received."""
        if self._received >= ended_by:
            raise Interrupted

    @contextmanager
    def interruptible(self, ended_by: int) -> Iterator[None]:
        """Have that signal raise `Interrupted` anywhere in the block: for a single call that blocks in the system."""
        self._raise_at = ended_by
        try:
            self.check(ended_by)
            yield
        finally:
            self._raise_at = _NEVER

    def sleep(self, seconds: float) -> None:
        """Wait, also for infinity; any signal, also an earlier one, raises `Interrupted` at once."""
        self._wait([], [], seconds, FIRST)

    def wait_readable(self, source: Any, seconds: float, ended_by: int) -> bool:
        """Wait until a socket or descriptor has something to read; False if it has nothing within that time.

        Raises:
            Interrupted: the signal `ended_by` was received.
        """
        return self._wait([source], [], seconds, ended_by)

    def wait_writable(self, sink: int, ended_by: int) -> None:
        """Wait until a descriptor takes data; the signal `ended_by` raises `Interrupted`."""
        self._wait([], [sink], _NEVER, ended_by)

    def _wait(self, sources: list[Any], sinks: list[Any], seconds: float, ended_by: int) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            self.check(ended_by)
            left = min(max(deadline - time.monotonic(), 0), _LONGEST_SELECT)
            try:
                readable, writable, _ = select.select([*sources, *self._wakeups[:1]], sinks, [], left)
            except (OSError, ValueError):  # Windows can wait for sockets alone; elsewhere its use reports the error
                return True
            if writable or any(source in readable for source in sources):
                return True
            for wakeup in readable:
                with suppress(BlockingIOError):
                    wakeup.recv(4096)
            if time.monotonic() >= deadline:
                return False
