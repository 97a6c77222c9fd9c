"""What the command line can do."""

import logging
import os
import sys
from collections.abc import Callable, Sequence

from app import logs, settings
from app.exits import ExitCode, Failure
from app.heartbeat import beat
from app.job import run
from app.logs import event, log
from app.settings import Configuration, Settings
from app.signals import Interrupted, Stop


def main(arguments: Sequence[str], stop: Stop) -> int:
    """Run a command; return the exit code."""
    _occupy_streams()
    try:
        return _run(arguments, stop)
    except Interrupted:
        return 128 + (stop.signum or 0)
    except Failure as failure:
        event(logging.ERROR, "end", f"Ended with exit code {failure.code}: {failure}")
        return failure.code
    except Exception as error:
        log.exception("This is a bug; please report it.")
        event(logging.ERROR, "end", f"Ended with exit code {ExitCode.BUG}: a bug ({type(error).__name__}).")
        return ExitCode.BUG


def _run(arguments: Sequence[str], stop: Stop) -> int:
    if not arguments:
        return _with_settings(lambda settings: run(settings, stop), stop)

    from app.arguments import parse

    options = parse(arguments)
    if options.command == "check":
        from app.check import check

        return check(_read_settings(stop), stop)
    if options.command == "standby":
        from app.standby import standby

        return _with_settings(lambda settings: standby(settings, stop), stop)

    if options.command == "history":
        from app.history import history

        return history(options.directory, options.max_age)

    from app.demo import demo

    return demo(options.exams, options.faults, stop)


def _read_settings(stop: Stop) -> Configuration:
    with stop.interruptible(after=1), stop.waiting():  # a named pipe in place of a file may never be written to
        configuration = settings.read()
    logs.configure(configuration["LOG_LEVEL"].value, configuration["LOG_FORMAT"].value)
    for name, value in configuration.proxies.items():
        os.environ.setdefault(name, value)  # where requests looks for them
    return configuration


def _with_settings(act: Callable[[Settings], int], stop: Stop) -> int:
    """Read the settings and act on them, or say all that is wrong with them."""
    configuration = _read_settings(stop)
    for warning in configuration.warnings:
        event(logging.WARNING, "settings", warning)
    for problem in configuration.problems:
        event(logging.ERROR, "settings", problem)
    if not configuration.problems:
        return act(configuration.settings())
    code = ExitCode.CONFIGURATION
    event(
        logging.ERROR,
        "end",
        f"Ended with exit code {code}: nothing was expired. Fix these settings, in the"
        " environment, in secret files or in .env in the working directory.",
    )
    beat(configuration["HEARTBEAT_URL"].value, str(code), stop)
    return code


def _occupy_streams() -> None:
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
