"""The arguments of the command line."""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from app import __version__
from app.exceptions import ExitCode


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _directory(text: str) -> Path:
    if not (path := Path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory that can be looked into")
    return path


def _hours(text: str) -> timedelta:
    try:
        return timedelta(hours=float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a number of hours, not {text!r}") from None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its options. Exits by itself after --help and --version, and with 64 on bad usage."""
    parser = _Parser(
        prog="python -m app",
        description="Expires overdue exams through Proctor and prints each of them as a row of a CSV on stdout, or in"
        " OUTPUT_DIR. Without a command, it does so. Settings come from the environment, secret files and .env.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    commands.add_parser("check", help="prove settings, output, token and endpoint without expiring anything")
    demo = commands.add_parser("demo", help="run against an embedded Proctor on this machine; needs no settings")
    demo.add_argument("--exams", type=_count, default=250, metavar="N", help="how many overdue exams (default: 250)")
    demo.add_argument("--faults", action="store_true", help="with a 503, an expired token and a lost answer on the way")
    history = commands.add_parser("history", help="list the runs of an OUTPUT_DIR; fails where the last one did")
    history.add_argument("directory", type=_directory, metavar="DIR")
    history.add_argument(
        "--max-age", type=_hours, metavar="HOURS", help="fail also where the last run ended longer ago than this"
    )
    commands.add_parser("standby", help="check the settings, then wait beside the runs that a scheduler starts here")
    return parser.parse_args(arguments)
