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
from app.exceptions import MEANINGS, ExitCode, Failure
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
    code = ExitCode.CONFIGURATION
    log_event(
        logging.ERROR,
        "end",
        f"Ended with exit code {code}: nothing was expired. Fix the settings named above, in the environment, in"
        " secret files, or in .env in the working directory.",
    )
    verify = tls_verify(configuration["TLS_VERIFY"].value, configuration["TLS_CA_FILE"].value)
    Monitor(configuration["HEARTBEAT_URL"].value, verify).ping(str(code), stop, ended_by=FIRST)
    return code


_SETTINGS = """\
settings: each is looked up in the environment (NAME, or the file that NAME_FILE
names), in the file /run/secrets/<name in lower case>, then in .env (NAME=value).
  required    PROCTOR_URL CLIENT_NAME AUTH_URL AUTH_CLIENT_ID AUTH_CLIENT_SECRET
              AUTH_USERNAME AUTH_PASSWORD (these two not for client_credentials)
  optional    AUTH_GRANT_TYPE AUTH_SCOPE AUTH_CLIENT_AUTH TLS_CA_FILE TLS_VERIFY
              CONNECT_TIMEOUT READ_TIMEOUT MAX_ATTEMPTS MAX_WAIT MAX_RUNTIME
              MAX_LOST_RESPONSES FAIL_ON_NO_PROGRESS OUTPUT_DIR LOG_LEVEL
              LOG_FORMAT HEARTBEAT_URL
The command check shows their values. README.md and .env.example explain them.

examples:
  python -m app check
  python -m app > expired.csv
  mkdir output && OUTPUT_DIR=output python -m app

exit codes:
"""

_SIGNALS = """\
  128 + n   ended by signal n: SIGHUP 129, SIGINT 130, SIGTERM 143; killed 137
"""

_CHECK = """\
Prints all settings with their values (not those of secrets) and sources, then a
line that begins with ok or FAILED for settings, output, token and endpoint.
Ends with 0, or with the exit code that a run would end with.

example:
  python -m app check
"""

_DEMO = """\
The exams are made up. The CSV goes to stdout. The settings LOG_LEVEL and
LOG_FORMAT are honoured.

examples:
  python -m app demo > expired.csv
  python -m app demo --exams 5000 > expired.csv
  python -m app demo --faults > expired.csv
"""

_HISTORY = """\
Needs no settings. To recover exams of lost responses: python -m app recover --help

example:
  python -m app history output --max-age 26
"""

_STANDBY = """\
For docker-compose.yml; Linux only. Uses the settings of the job. A signal is
passed on to runs under way in this container, and standby ends after them.

example:
  python -m app standby
"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its options. Exits after --help and --version, and with 64 on wrong usage."""
    from app.recovery import options as recovery  # not needed by the job itself

    parser = _Parser(
        prog="python -m app",
        usage="python -m app [-h] [--version] [COMMAND ...]",
        description="Without a COMMAND: expires overdue exams through Proctor, and writes a CSV row for\n"
        "each, on stdout or in OUTPUT_DIR.",
        epilog=_SETTINGS + "".join(f"  {code:<9} {meaning}\n" for code, meaning in MEANINGS.items()) + _SIGNALS,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser, prog="python -m app"
    )
    checking = "verify settings, output, token and endpoint without expiring anything"
    commands.add_parser("check", help=checking, description=_sentence(checking), epilog=_CHECK)
    demonstrating = "run against an embedded Proctor on this machine; needs no settings"
    demo = commands.add_parser("demo", help=demonstrating, description=_sentence(demonstrating), epilog=_DEMO)
    demo.add_argument("--exams", type=_count, default=250, metavar="N", help="how many overdue exams (default: 250)")
    demo.add_argument(
        "--faults", action="store_true", help="with a 503, an expired token and a lost response: ends with 65"
    )
    history = commands.add_parser(
        "history",
        help="list the runs of an OUTPUT_DIR; fails while anything is wrong or unresolved",
        description="Lists the runs in DIR. Ends with 1 while a lost response is unresolved, a killed run has\n"
        "no run after it, or the last run of a client failed; otherwise with 0.",
        epilog=_HISTORY,
    )
    history.add_argument(
        "directory", type=recovery.existing_directory, metavar="DIR", help="the OUTPUT_DIR of the runs"
    )
    history.add_argument(
        "--max-age", type=_hours, metavar="HOURS", help="also fail if a client's last run ended longer ago than this"
    )
    recover = commands.add_parser("recover", help=recovery.SUMMARY)
    recovery.add_options(recover)
    idling = "verify the settings, then idle in the container where a scheduler starts runs"
    commands.add_parser("standby", help=idling, description=_sentence(idling), epilog=_STANDBY)
    options = parser.parse_args(arguments)
    if options.command == "recover":
        options.recovery = recovery.read_options(options, recover)
    return options


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _hours(text: str) -> timedelta:
    try:
        return timedelta(hours=float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a number of hours, not {text!r}") from None
