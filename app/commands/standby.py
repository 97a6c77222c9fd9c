"""The idle process of a container in which a scheduler starts runs, as docker compose with ofelia does.

It is PID 1 there, and what receives the signal of a container's stop. It passes the signal on to the runs in its
container and waits for them: everything in a container is killed as soon as its PID 1 ends. Linux only.
"""

import logging
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.exceptions import Misconfigured
from app.logs import log_event
from app.output.volume import verify_writable
from app.settings import Settings
from app.signals import SECOND, Interrupted, Stop

if sys.platform != "linux":
    raise Misconfigured("standby is for Linux containers; here, have a scheduler start the job itself.")


def standby(settings: Settings, stop: Stop) -> int:
    """Wait for a signal, then for the end of every run in this container; return the exit code."""
    if settings.output_dir:
        verify_writable(settings.output_dir)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # PID 1 inherits orphans; ignored, they do not become zombies
    log_event(logging.INFO, "standby", "The settings are valid. Waiting for the scheduler to start runs here.")
    with suppress(Interrupted):
        stop.sleep(float("inf"))
    while runs := list(_runs()):
        log_event(
            logging.INFO, "standby", f"Passing the signal on to every run here ({len(runs)}) and waiting for it to end."
        )
        shells = [shell for pid in runs if (shell := _shell_of(pid))]
        for pid in runs:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, stop.signum or signal.SIGTERM)
        for pid in [*runs, *shells]:
            _wait_for_end(pid, stop)
    log_event(logging.INFO, "standby", "No run is under way. Ended.")
    return 0


def _runs() -> Iterator[int]:
    """The processes in this container that are the job."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if command[1:] == [b"-m", b"app", b""]:
                yield int(entry.name)


def _shell_of(pid: int) -> int | None:
    """The shell whose pipeline a run is part of, if any: it ends when the last line is in the run's log."""
    with suppress(OSError):
        leader = os.getpgid(pid)
        return leader if leader not in (0, pid, os.getpgid(0)) else None
    return None


def _wait_for_end(pid: int, stop: Stop) -> None:
    """Wait for a process that is not a child; a second signal is passed on, too."""
    with suppress(ProcessLookupError, PermissionError):
        descriptor = os.pidfd_open(pid)
        try:
            try:
                stop.wait_readable(descriptor, float("inf"), SECOND)
            except Interrupted:
                os.kill(pid, stop.signum or signal.SIGTERM)
                select.select([descriptor], [], [])
        finally:
            os.close(descriptor)
