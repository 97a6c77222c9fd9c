"""The command line: dispatch, settings, and the exit code of an error that a command does not handle."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from app import settings
from app.exceptions import ExitCode, Failure
from app.heartbeat import Monitor
from app.logs import log, log_event
from app.proctor.transport import tls_verify
from app.settings import Configuration, Settings
from app.signals import FIRST, Interrupted, Stop


def main(arguments: Sequence[str], stop: Stop) -> int:
    """Run a command; return the exit code."""
    try:
        return _dispatch(arguments, stop)
    except Interrupted:
        return 128 + (stop.signum or 0)
    except Failure as failure:
        log_event(logging.ERROR, "end", f"Ended with exit code {failure.code}: {failure}")
        return failure.code
    except Exception as error:
        log.exception("This is a bug; please report it.")
        log_event(logging.ERROR, "end", f"Ended with exit code {ExitCode.BUG}: a bug ({type(error).__name__}).")
        return ExitCode.BUG


def _dispatch(arguments: Sequence[str], stop: Stop) -> int:
    """Import and run the command that the arguments name. The job has no arguments, and needs no other command."""
    if not arguments:
        from app.commands.run import run

        return _with_settings(lambda settings: run(settings, stop), stop)
    from app.arguments import parse

    options = parse(arguments)
    match options.command:
        case "check":
            from app.commands.check import check

            return check(_read_settings(stop), stop)
        case "history":
            from app.commands.history import history

            return history(options.directory, options.max_age)
        case "demo":
            from app.commands.demo import demo

            return demo(options.exams, options.faults, stop)
        case "recover":
            from app.commands.recover import recover

            return recover(options.recovery, stop)
    from app.commands.standby import standby

    return _with_settings(lambda settings: standby(settings, stop), stop)


def _read_settings(stop: Stop) -> Configuration:
    with stop.interruptible(FIRST):  # a named pipe in place of a file may never be written to
        configuration = settings.read()
    configuration.apply()
    return configuration


def _with_settings(act: Callable[[Settings], int], stop: Stop) -> int:
    """Read the settings and act on them, or log every problem with them."""
    configuration = _read_settings(stop)
    for warning in configuration.warnings:
        log_event(logging.WARNING, "settings", warning)
    for problem in configuration.problems:
        log_event(logging.ERROR, "settings", problem)
    if not configuration.problems:
        return act(configuration.settings())
    code = ExitCode.CONFIGURATION
    first, *others = configuration.problems
    log_event(
        logging.ERROR,
        "end",
        f"Ended with exit code {code}: nothing was expired. {first}"
        + (f" Further problems, listed above: {len(others)}." if others else ""),
    )
    verify = tls_verify(configuration["TLS_VERIFY"].value, configuration["TLS_CA_FILE"].value)
    with suppress(Interrupted):  # the settings are wrong all the same
        Monitor(configuration["HEARTBEAT_URL"].value, verify).ping(str(code), stop, ended_by=FIRST)
    return code
