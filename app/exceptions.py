"""How a run can end, and the one place where that becomes an exit code (the numbers of BSD's sysexits.h)."""

from enum import IntEnum, StrEnum
from typing import NamedTuple


class ExitCode(IntEnum):
    """Exit codes other than 128 + n, which says that signal n ended the run."""

    OK = 0
    BAD_NIGHT = 1
    USAGE = 64
    ANSWERS_LOST = 65
    UNAVAILABLE = 69
    BUG = 70
    OUTPUT = 74
    TRY_LATER = 75
    PROTOCOL = 76
    CREDENTIALS = 77
    CONFIGURATION = 78


class Outcome(StrEnum):
    """What a run's summary calls its end."""

    DRAINED = "drained"
    NO_PROGRESS = "no_progress"
    TIME_LIMIT = "time_limit"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    KILLED = "killed"


class Failure(Exception):
    """The run cannot go on. The text says what was seen and what to do; it never holds a secret."""

    code = ExitCode.BUG


class TooManyLost(Failure):
    """More answers may have been lost than the settings tolerate."""

    code = ExitCode.ANSWERS_LOST


class Unavailable(Failure):
    """Proctor or the token endpoint could not be used, however often it was tried."""

    code = ExitCode.UNAVAILABLE


class OutputFailed(Failure):
    """The CSV or its summary could not be written."""

    code = ExitCode.OUTPUT


class Busy(Failure):
    """Another run holds the volume."""

    code = ExitCode.TRY_LATER


class ProtocolBroken(Failure):
    """An answer that the server must not give."""

    code = ExitCode.PROTOCOL


class Refused(Failure):
    """The credentials are not accepted."""

    code = ExitCode.CREDENTIALS


class Misconfigured(Failure):
    """A setting is wrong, or points at the wrong place."""

    code = ExitCode.CONFIGURATION


class Ending(NamedTuple):
    """How a run came to its end: `failure` is what stopped a failed one, `signum` the signal of an interrupted one."""

    outcome: Outcome
    failure: Failure | None = None
    signum: int = 0


_INVITES_RETRY = {ExitCode.OK, ExitCode.UNAVAILABLE, ExitCode.TRY_LATER}


def exit_code(ending: Ending, *, answers_lost: bool, fail_on_no_progress: bool) -> int:
    """The exit code of a run.

    Lost answers turn a code into 65 that would otherwise let a scheduler take the run for good or simply repeat it: the
    repetition finds nothing left to do, and the loss would go unseen.
    """
    if ending.outcome is Outcome.INTERRUPTED:
        return 128 + ending.signum
    code = ending.failure.code if ending.failure else ExitCode.OK
    if ending.outcome is Outcome.TIME_LIMIT or (ending.outcome is Outcome.NO_PROGRESS and fail_on_no_progress):
        code = ExitCode.TRY_LATER
    return ExitCode.ANSWERS_LOST if answers_lost and code in _INVITES_RETRY else code
