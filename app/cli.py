"""The command line: arguments, dispatch, and the exit code of an error that a command does not handle."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from app import __version__, logs, settings
from app.commands.check import check
from app.commands.history import history
from app.commands.run import run
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
    if not arguments:
        return _with_settings(lambda settings: run(settings, stop), stop)
    options = _parse(arguments)
    match options.command:
        case "check":
            return check(_read_settings(stop), stop)
        case "history":
            return history(options.directory, options.max_age)
        case "demo":
            from app.commands.demo import demo  # brings the embedded Proctor, which no other command needs

            return demo(options.exams, options.faults, stop)
        case "recover":
            from app.commands.recover import recover  # rarely needed

            return recover(options.recovery, stop)
    from app.commands.standby import standby  # Linux only

    return _with_settings(lambda settings: standby(settings, stop), stop)


def _read_settings(stop: Stop) -> Configuration:
    with stop.interruptible(FIRST):  # a named pipe in place of a file may never be written to
        configuration = settings.read()
    logs.configure(configuration["LOG_LEVEL"].value, configuration["LOG_FORMAT"].value)
    for name, value in configuration.proxies.items():
        os.environ.setdefault(name, value)  # where requests looks for them
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
    code, (first, *others) = ExitCode.CONFIGURATION, configuration.problems
    log_event(
        logging.ERROR,
        "end",
        f"Ended with exit code {code}: nothing was expired. {first}"
        + (f" Further problems, listed above: {len(others)}." if others else ""),
    )
    verify = tls_verify(configuration["TLS_VERIFY"].value, configuration["TLS_CA_FILE"].value)
    Monitor(configuration["HEARTBEAT_URL"].value, verify).ping(str(code), stop, ended_by=FIRST)
    return code


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its options. Exits after --help and --version, and with 64 on wrong usage."""
    from app import help_texts  # the job itself needs neither of these
    from app.recovery import options as recovery

    parser = _Parser(
        prog="python -m app",
        usage="python -m app [-h] [--version] [COMMAND ...]",
        description=help_texts.JOB,
        epilog=help_texts.SETTINGS_AND_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser, prog="python -m app"
    )
    commands.add_parser(
        "check",
        help="verify settings, output, token and endpoint without expiring anything",
        description=help_texts.CHECK,
    )
    demo = commands.add_parser(
        "demo",
        help="run against an embedded Proctor on this machine; needs no settings",
        description=help_texts.DEMO,
    )
    demo.add_argument("--exams", type=_count, default=250, metavar="N", help="how many overdue exams (default: 250)")
    demo.add_argument(
        "--faults", action="store_true", help="with a 503, an expired token and a lost response: ends with 65"
    )
    history = commands.add_parser(
        "history",
        help="list the runs of an OUTPUT_DIR; fails while anything is wrong or unresolved",
        description=help_texts.HISTORY,
    )
    history.add_argument(
        "directory", type=recovery.existing_directory, metavar="DIR", help="the OUTPUT_DIR of the runs"
    )
    history.add_argument(
        "--max-age", type=_hours, metavar="HOURS", help="also fail if a client's last run ended longer ago than this"
    )
    recover = commands.add_parser("recover", help=recovery.SUMMARY)
    recovery.add_options(recover)
    commands.add_parser(
        "standby",
        help="verify the settings, then idle in the container where a scheduler starts runs",
        description=help_texts.STANDBY,
    )
    options = parser.parse_args(arguments)
    if options.command == "recover":
        options.recovery = recovery.read_options(options, recover)
    return options


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _hours(text: str) -> timedelta:
    try:
        return timedelta(hours=float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a number of hours, not {text!r}") from None
