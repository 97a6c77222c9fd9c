"""What a trial of the campaign is made of: the embedded Proctor, the job as a process, and a pipe for its CSV."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from app.simulator import Outcome
from tests.embedded import EmbeddedProctor
from tests.tools.sabotage import Sabotage


class Watched(EmbeddedProctor):
    """An embedded Proctor that reports the moments of a call: its request has been read, its work is done."""

    moment: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.token_faults: list[str] = []
        self.issued: list[str] = []

    def begin(self, entry: dict[str, Any]) -> None:
        super().begin(entry)
        self.moment()

    def work(self, half: bool) -> Outcome:
        done = super().work(half)
        self.moment()
        return done

    def next_token_fault(self) -> str:
        self.token_faults.append(super().next_token_fault())
        return self.token_faults[-1]

    def grant(self) -> tuple[str, int]:
        token, seconds = super().grant()
        self.issued.append(token)
        return token, seconds


class Pipe:
    """A pipe for the CSV. Its reader takes a little at a time, or waits for `leave`."""

    def __init__(self, path: Path, patient: bool) -> None:
        os.mkfifo(path)
        self.received = b""
        self._source: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._sink = os.open(path, os.O_WRONLY)  # so that the reader sees no end before the job has begun to write
        self._reader = threading.Thread(target=self._read)
        if patient:
            os.set_blocking(self._source, True)
            self._reader.start()

    def leave(self) -> None:
        """Take what is there, and go."""
        if self._source is not None:
            self._read()
            os.close(self._source)
            self._source = None

    def close(self) -> None:
        """Read to the end; nobody writes any more."""
        os.close(self._sink)
        if self._reader.ident:
            self._reader.join()
        self.leave()

    def _read(self) -> None:
        assert self._source is not None
        with suppress(BlockingIOError):
            while chunk := os.read(self._source, 1000):
                self.received += chunk


@dataclass
class Job:
    """A process of the job: what was done to it, and what it met."""

    process: BaseProcess
    log: Path | None
    disturbance: str
    sabotage: Sabotage | None
    first_call: int
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Its calls in the record of the server, and those of jobs at the same time."""
    token_faults: list[str] = field(default_factory=list)
    code: int = 0
    step: str = ""
    """The sabotaged step: the system call and the name of the file; empty where the job did not come that far."""

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL
