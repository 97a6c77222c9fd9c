"""The CSVs that can hold a change of an exam by when it was made.

An exam that was expired can be reopened and expired again: the row of the first time does not stand for the second.
"""

import os
import re
import sys
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from app.model import Period
from app.output.files import PARTIAL
from app.output.past_runs import PastRun
from app.recovery.texts import STDIN

_MARGIN = timedelta(hours=2)  # clocks differ, and the database has the same times twice when they are put back
_ALWAYS = Period(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
_FROM_LOG = re.compile(r"_from_log(_\d+)?$")


def candidates(csvs: Iterable[Path], runs: Collection[PastRun], periods: Collection[Period]) -> list[Path]:
    """The CSVs of a directory that can hold a change made in one of these periods.

    Those are also all whose time is unknown, such as one without a summary.
    """
    run_of_stem = {run.summary.stem: run for run in runs}
    periods_of_csv: dict[str, list[Period]] = {}
    for window in chain.from_iterable(run.lost for run in runs):
        if window.csv:
            periods_of_csv.setdefault(window.csv, []).append(window.period)
    found = []
    for csv in csvs:
        run = run_of_stem.get(_FROM_LOG.sub("", csv.name.removesuffix(PARTIAL).removesuffix(".csv")))
        times = [_time(run)] if run else periods_of_csv.get(csv.name, [_ALWAYS])
        if any(_overlap(time, period) for time in times for period in periods):
            found.append(csv)
    return found


def without_source(csvs: Collection[Path], source: Path) -> list[Path]:
    """The CSVs without the list that is read, which may lie beside those of the runs; raises OSError."""
    read = os.fstat(sys.stdin.fileno()) if source == STDIN else source.stat()
    return [csv for csv in csvs if csv.name.startswith("expired_exams_") or not os.path.samestat(csv.stat(), read)]


def _time(run: PastRun) -> Period:
    """When the exams in the CSVs of a run were changed."""
    if run.ended and run.ended < run.started:  # the clock was put back
        return _ALWAYS
    windows = [window.period for window in run.lost]
    ends = [*(window.end for window in windows), *([run.ended] if run.ended else [])]
    return Period(min([run.started, *(window.start for window in windows)]), max(ends, default=_ALWAYS.end))


def _overlap(one: Period, other: Period) -> bool:
    return one.start - other.end <= _MARGIN and other.start - one.end <= _MARGIN
