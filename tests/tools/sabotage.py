"""The real job as a process that is killed, whose storage fails or whose clock is set at a chosen step of its output.

A step is one system call by which the CSV, the summary or the record of the run is written; see sabotage.c. So moments
are met that last for microseconds: between the bytes of a row, between a row and the record that it is there, between
the summary and the final name.
"""

import atexit
import ctypes
import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

KILLS = ("killed before a step", "killed amid a step", "killed after a step")
FAILURES = {"storage full": errno.ENOSPC, "storage defective": errno.EIO, "storage read-only": errno.EROFS}
FAIL_FOR_GOOD, FAIL_ONCE, SET_CLOCK = 3, 4, 5
REPORT = "sabotage.log"
"""What in a job's directory shows which step it was: lines of the system call and the name of the file."""


@dataclass(frozen=True)
class Sabotage:
    """What happens at step number `at`; a failure lasts from then on, unless it happens `once`.

    The clock of the job is `seconds` ahead until that step.
    """

    at: int
    what: str
    once: bool = False
    seconds: int = 0

    def start(self, directory: str) -> None:
        """Have it happen in this process, which must have been started with the library."""
        report = os.open(REPORT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if self.what in KILLS:
            how = KILLS.index(self.what)
        else:
            how = SET_CLOCK if self.seconds else FAIL_ONCE if self.once else FAIL_FOR_GOOD
        failure = FAILURES.get(self.what, 0)
        seconds = ctypes.c_long(self.seconds)
        ctypes.CDLL(None).sabotage(os.fsencode(os.path.realpath(directory)), self.at, how, failure, report, seconds)


@cache
def library() -> Path | None:
    """The compiled library, in a directory that lives as long as this process; None where there is no C compiler.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return None
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    target = Path(directory.name) / "sabotage.so"
    source = Path(__file__).with_name("sabotage.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", target, source], check=True)
    return target


@contextmanager
def loaded() -> Iterator[bool]:
    """Have the library in all processes that are started in the block; False where there is none."""
    path = library()
    if not path:
        yield False
        return
    before = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = str(path)
    try:
        yield True
    finally:
        del os.environ["LD_PRELOAD"]
        if before is not None:
            os.environ["LD_PRELOAD"] = before


def job(settings: dict[str, str], directory: str, stdout: str, stderr: str | None, sabotage: Sabotage | None) -> None:
    """Run the job to its end in this process, its streams led to files in `directory`, or closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(directory)
    for descriptor, name in ((1, stdout), (2, stderr)):
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
    if sabotage:
        sabotage.start(directory)
    os._exit(main([], stop))
