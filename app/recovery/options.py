"""The options of the command `recover`."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from app.model import Period, parse_timestamp
from app.recovery.zones import Zone, parse_zone

SUMMARY = "print the query for exams of lost responses; write the exams it finds to a CSV"

_DESCRIPTION = """\
Recovers exams that are in no CSV. For the windows of lost responses, in two steps:

  python -m app recover output > query.sql
  mysql -N exam < query.sql | python -m app recover output --found -

The first prints one query for every unresolved window of the runs in output, an OUTPUT_DIR; any client of MySQL or
MariaDB can run it. The second writes the exams that no CSV there has to a CSV of their own, and marks the windows
as resolved. Both can safely be repeated. No settings are needed, but LOG_LEVEL and LOG_FORMAT are honoured.

The database stores times in the time zone of the exam service's JVM. A wrong --database-zone does no harm: the
second step detects it with an exam that is in a CSV, changes nothing, and prints the right one.
"""

_EPILOG = """\
For rows that a run could write to its log alone (exit code 74), and to mark all windows as resolved by other means:

  python -m app recover output --log job.log
  python -m app recover output --acknowledge "asked the database team, ticket 4711"

For runs without OUTPUT_DIR, give the windows from the log, and the CSVs.

  python -m app recover --window 2026-11-22T02:00:00.679Z 2026-11-22T02:06:00.681Z > query.sql
  mysql -N exam < query.sql | python -m app recover --found - --csv expired.csv > recovered.csv

Exit codes: 0 done, or nothing to do; 64 wrong usage; 65 windows that the query did not ask for are unresolved; 74 a
file cannot be read or written; 75 a run is under way, the job must be run again after one that was killed, or the
query was run before the end of a window; 76 the list is not the complete result of the query, or a row of the log
cannot be read.
"""


class Options(NamedTuple):
    """What is to be done. A path `-` is stdin; without a directory, the CSV goes to stdout."""

    directory: Path | None
    windows: list[Period]
    zone: Zone
    found: Path | None
    unverified: bool
    log: Path | None
    acknowledge: str | None
    csvs: list[Path]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add = parser.add_argument
    add("directory", type=existing_directory, nargs="?", metavar="DIR", help="the OUTPUT_DIR of the runs")
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
        "--unverified",
        action="store_true",
        help="with --found: accept any list, even an empty one, as complete for every unresolved window",
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


def read_options(parsed: argparse.Namespace, parser: argparse.ArgumentParser) -> Options:
    """The options, if they go together; otherwise exits with 64."""
    takes_list = parsed.found or parsed.log
    if parsed.directory and parsed.window:
        parser.error("--window is for runs without OUTPUT_DIR: give either DIR or --window")
    if not parsed.directory and parsed.acknowledge is not None:
        parser.error("--acknowledge needs DIR")
    if not parsed.directory and not parsed.window and not takes_list:
        parser.error("DIR is missing, or --window for a run without OUTPUT_DIR")
    if parsed.unverified and not parsed.found:
        parser.error("--unverified goes with --found")
    for start, end in parsed.window:
        if start > end:
            parser.error("a --window must not end before it starts")
    return Options(
        parsed.directory,
        [Period(start, end) for start, end in parsed.window],
        parsed.database_zone,
        parsed.found,
        parsed.unverified,
        parsed.log,
        parsed.acknowledge,
        parsed.csv,
    )


def existing_directory(text: str) -> Path:
    """For argparse: the path of a directory that is there."""
    if not (path := Path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a readable directory")
    return path


def _file(text: str) -> Path:
    if not (path := Path(text)).exists() or path.is_dir():
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
