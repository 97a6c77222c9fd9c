"""Turns SIGTERM, SIGINT and SIGHUP into an orderly end.

A first signal asks the run to end after the call under way; a second one ends that call as well. A signal raises
`Interrupted` only in a `with stop.waiting()` that stands within a `with stop.interruptible(after=n)`: so it never lands
between an answer and its rows, nor within a library that may hold a lock at that moment.
Imports nothing slow: as PID 1 of a container the process ignores SIGTERM until `install` has been called.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NEVER = float("inf")


class Interrupted(BaseException):
    """A signal ended what was under way. Not an `Exception`: nothing but the end of the run may swallow it."""


class Stop:
    """The signals received so far."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.on_first: Callable[[int], None] = lambda _: None
        """Called with the first signal's number, between any two steps of the program."""
        self._received = 0
        self._raise_at: float = _NEVER
        self._waiting = False

    def install(self) -> None:
        """Take over SIGTERM, SIGINT and, unless `nohup` has it ignored, SIGHUP, where they are. Main thread only."""
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, signum: int, _frame: object) -> None:
        self._received += 1
        if not self.signum:
            self.signum = signum
            waiting, self._waiting = self._waiting, False  # what is called here is no wait
            self.on_first(signum)
            self._waiting = waiting
        if self._waiting and self._received >= self._raise_at:
            self._raise_at = _NEVER
            raise Interrupted

    def check(self) -> None:
        """Raise `Interrupted` if any signal has come."""
        if self.signum:
            raise Interrupted

    @contextmanager
    def interruptible(self, after: int) -> Iterator[None]:
        """Let the signal that is number `after` of this run raise `Interrupted` in a wait, or at the block's start."""
        before, self._raise_at = self._raise_at, after
        try:
            if self._received >= after:
                raise Interrupted
            yield
        finally:
            self._raise_at = before

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a wait. It does nothing by itself: whether, and which, signal ends the wait is `interruptible`'s."""
        before, self._waiting = self._waiting, True
        try:
            if self._received >= self._raise_at:
                raise Interrupted
            yield
        finally:
            self._waiting = before

    def wait(self, seconds: float) -> None:
        """Wait; any signal, also an earlier one, raises `Interrupted` at once."""
        with self.interruptible(after=1), self.waiting():
            time.sleep(seconds)
