"""The arguments of the command line. The job has none, so a run does not import this."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from app import __version__, help_texts
from app.commands.recover.options import Options
from app.exceptions import ExitCode
from app.model import Period, parse_timestamp
from app.recovery.zones import Zone, parse_zone


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its options. Exits after --help and --version, and with 64 on wrong usage."""
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
    history.add_argument("directory", type=_directory, metavar="DIR", help="the OUTPUT_DIR of the runs")
    history.add_argument(
        "--max-age", type=_hours, metavar="HOURS", help="also fail if a client's last run ended longer ago than this"
    )
    recover = commands.add_parser(
        "recover",
        help="print the query for exams of lost responses; write the exams it finds to a CSV",
        description=help_texts.RECOVER,
        epilog=help_texts.RECOVER_EXAMPLES_AND_CODES,
    )
    _add_recover_options(recover)
    commands.add_parser(
        "standby",
        help="verify the settings, then idle in the container where a scheduler starts runs",
        description=help_texts.STANDBY,
    )
    options = parser.parse_args(arguments)
    if options.command == "recover":
        options.recovery = _recover_options(options, recover)
    return options


def _add_recover_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("directory", type=_directory, nargs="?", metavar="DIR", help="the OUTPUT_DIR of the runs")
    add(
        "--database-zone",
        type=_zone,
        default=parse_zone("UTC"),
        metavar="ZONE",
        help="time zone of the exam service's JVM, such as America/Los_Angeles or UTC-08:00 (default: UTC)",
    )
    add(
        "--window",
        type=_time,
        nargs=2,
        action="append",
        default=[],
        metavar=("START", "END"),
        help="instead of DIR: a window, as in the log; may be repeated",
    )
    action = parser.add_mutually_exclusive_group()
    add = action.add_argument
    add("--found", type=_source, metavar="FILE", help="read the result of the query; - is stdin")
    add("--log", type=_source, metavar="FILE", help="read the rows marked UNWRITTEN ROW in a log; - is stdin")
    add("--acknowledge", type=_note, metavar="NOTE", help="mark all windows in DIR as resolved by other means")
    add = parser.add_argument
    add(
        "--trust-zone",
        action="store_true",
        help="with --found: the time zone was verified by hand, as no run has an exam to verify it by",
    )
    add(
        "--unverified",
        action="store_true",
        help="with --found: accept a list from elsewhere as complete for every unresolved window",
    )
    add(
        "--csv",
        type=_file,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="with --found or --log: more CSVs whose exams are not missing",
    )


def _recover_options(parsed: argparse.Namespace, parser: argparse.ArgumentParser) -> Options:
    """The options of `recover`, if they go together; otherwise exits with 64."""
    takes_list = parsed.found or parsed.log
    if parsed.directory and parsed.window:
        parser.error("--window is for runs without OUTPUT_DIR: give either DIR or --window")
    if not parsed.directory and parsed.acknowledge is not None:
        parser.error("--acknowledge needs DIR")
    if not parsed.directory and not parsed.window and not takes_list:
        parser.error("DIR is missing, or --window for a run without OUTPUT_DIR")
    if parsed.trust_zone and not parsed.found:
        parser.error("--trust-zone goes with --found")
    if parsed.unverified and not parsed.found:
        parser.error("--unverified goes with --found")
    for start, end in parsed.window:
        if start > end:
            parser.error("a --window must not end before it starts")
    return Options(
        directory=parsed.directory,
        windows=[Period(start, end) for start, end in parsed.window],
        zone=parsed.database_zone,
        found=parsed.found,
        trust_zone=parsed.trust_zone,
        unverified=parsed.unverified,
        log=parsed.log,
        acknowledge=parsed.acknowledge,
        csvs=parsed.csv,
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _hours(text: str) -> timedelta:
    try:
        return timedelta(hours=float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be a number of hours, not {text!r}") from None


def _directory(text: str) -> Path:
    if not os.path.isdir(path := Path(text)):  # False for one that this user cannot see
        raise argparse.ArgumentTypeError(f"{text!r} is not a readable directory")
    return path


def _file(text: str) -> Path:
    if not os.path.exists(path := Path(text)) or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a readable file")
    return path


def _source(text: str) -> Path:
    return Path(text) if text == "-" else _file(text)


def _note(text: str) -> str:
    if not (note := " ".join(text.split())):
        raise argparse.ArgumentTypeError("must say how the windows were resolved")
    return note


def _zone(text: str) -> Zone:
    try:
        return parse_zone(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _time(text: str) -> datetime:
    try:
        if text.endswith("Z"):
            return parse_timestamp(text)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"must be a time in UTC such as 2026-11-22T02:00:00.679Z, not {text!r}")
