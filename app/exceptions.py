"""How a run can end, and the one place where that becomes an exit code (numbered as in BSD's sysexits.h)."""

from enum import IntEnum, StrEnum
from typing import NamedTuple


class ExitCode(IntEnum):
    """Exit codes other than 128 + n, which says that signal n ended the run."""

    OK = 0
    PROBLEMS_FOUND = 1
    USAGE = 64
    RESPONSES_LOST = 65
    UNAVAILABLE = 69
    BUG = 70
    OUTPUT = 74
    TRY_LATER = 75
    UNEXPECTED_RESPONSE = 76
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


class Transient(Exception):
    """Worth another attempt, after at least `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class Failure(Exception):
    """The run cannot go on. The text says what was seen and what to do; it never holds a secret."""

    code = ExitCode.BUG


class TooManyLost(Failure):
    """More responses were lost than the settings tolerate."""

    code = ExitCode.RESPONSES_LOST


class Unavailable(Failure):
    """Proctor or the token endpoint could not be used, however often it was tried."""

    code = ExitCode.UNAVAILABLE


class OutputFailed(Failure):
    """The CSV or its summary could not be written."""

    code = ExitCode.OUTPUT


class Busy(Failure):
    """Another run holds the volume."""

    code = ExitCode.TRY_LATER


class TooEarly(Failure):
    """It is too early for this; the same command works later."""

    code = ExitCode.TRY_LATER


class UnexpectedResponse(Failure):
    """A response that neither Proctor, a token endpoint nor the query of `recover` gives."""

    code = ExitCode.UNEXPECTED_RESPONSE


class CredentialsRejected(Failure):
    """The credentials, or the token that they gave, are not accepted."""

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


def reports_losses(code: int | None) -> bool:
    """Whether an exit code reports lost responses for good: no scheduler takes the run for a success or repeats it."""
    return code in set(ExitCode) - _INVITES_RETRY


def exit_code(ending: Ending, *, responses_lost: bool, fail_on_no_progress: bool) -> int:
    """The exit code of a run.

    Lost responses turn into 65 any code on which a scheduler would take the run for a success or repeat it: the
    repetition would find nothing left to do and hide the loss.
    """
    if ending.outcome is Outcome.INTERRUPTED:
        return ExitCode.RESPONSES_LOST if responses_lost else 128 + ending.signum
    code = ending.failure.code if ending.failure else ExitCode.OK
    if ending.outcome is Outcome.TIME_LIMIT or (ending.outcome is Outcome.NO_PROGRESS and fail_on_no_progress):
        code = ExitCode.TRY_LATER
    return ExitCode.RESPONSES_LOST if responses_lost and code in _INVITES_RETRY else code
