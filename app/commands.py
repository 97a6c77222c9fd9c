"""What the command line can do."""

import logging
import os
from collections.abc import Sequence

from app import logs, settings
from app.exits import ExitCode
from app.heartbeat import beat
from app.job import run
from app.logs import event
from app.settings import Configuration
from app.signals import Stop


def main(arguments: Sequence[str], stop: Stop) -> int:
    """Run a command; return the exit code."""
    _occupy_stderr()
    if not arguments:
        return _job(_read_settings(), stop)

    from app.arguments import parse

    options = parse(arguments)
    if isinstance(options, int):
        return options
    if options.command == "check":
        from app.check import check

        return check(_read_settings(), stop)

    from app.demo import demo

    return demo(options.exams, options.faults, stop)


def _read_settings() -> Configuration:
    configuration = settings.read()
    logs.configure(configuration.values["LOG_LEVEL"], configuration.values["LOG_FORMAT"])
    return configuration


def _job(configuration: Configuration, stop: Stop) -> int:
    for warning in configuration.warnings:
        event(logging.WARNING, "settings", warning)
    for problem in configuration.problems:
        event(logging.ERROR, "settings", problem)
    if configuration.problems:
        code = ExitCode.CONFIGURATION
        event(
            logging.ERROR,
            "end",
            f"Ended with exit code {code}: nothing was expired. Mend these settings.",
            exit_code=code,
        )
        beat(configuration.values["HEARTBEAT_URL"], str(int(code)))
        return code
    return run(configuration.settings(), stop)


def _occupy_stderr() -> None:
    """Where stderr is closed, let nothing else get its number: log lines would end up in the CSV."""
    try:
        os.fstat(2)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != 2:
            os.dup2(null, 2)
            os.close(null)
