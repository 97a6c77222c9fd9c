"""The first step: the query for all unresolved windows, or for those that the options name."""

import logging
from datetime import UTC, datetime
from pathlib import Path

from app.commands.recover.options import Options
from app.commands.recover.stdout import write_stdout
from app.exceptions import ExitCode
from app.logs import log_event
from app.model import Period, timestamp
from app.output.past_runs import PastRun
from app.recovery.known import known_exams
from app.recovery.query import query
from app.recovery.windows import read_runs, warn_of_unreported
from app.signals import Stop

_LIMIT = 100  # the exam service's expireExamLimit by default


def query_for(directory: Path, options: Options, stop: Stop) -> int:
    """Print the query for all windows of a directory that are unresolved."""
    runs, unresolved = read_runs(directory)
    if not unresolved:
        return ExitCode.OK
    warn_of_unreported(directory)
    for window, (run, lost) in unresolved.items():
        log_event(
            logging.WARNING,
            "unresolved",
            f"Unresolved: exams that Proctor changed {window}, in the run for {run.client_name} of"
            f" {timestamp(run.started)}. Each lost response can hold up to {_LIMIT} exams (expireExamLimit's"
            f" default). Reason: {lost.reason}.",
            summary=run.summary.name,
            **window.bounds(),
        )
    return print_query(list(unresolved), runs, options, stop)


def print_query(windows: list[Period], runs: list[PastRun], options: Options, stop: Stop) -> int:
    """Print the query for these windows, with exams of `runs` to verify the time zone, and log when to run it."""
    known = known_exams(runs, windows)
    if not known:
        log_event(
            logging.WARNING,
            "query",
            "No CSV here has an exam with which the time zone of the database could be verified; the query assumes"
            f" {options.zone.name}. Look up status_changed_at in exam.exam_event for an exam of any run: if it is not"
            " within the time of that run, print the query again with --database-zone. Then confirm the time zone with"
            " --trust-zone.",
        )
    write_stdout(query(windows, known, options.zone).encode(), stop)
    latest = max(window.end for window in windows)
    when = "now" if latest <= datetime.now(UTC) else f"after {timestamp(latest)}, as Proctor may be working until then"
    how = f"{options.directory} --found -" if options.directory else "--found - --csv YOUR.csv"
    if not known:
        how += " --trust-zone"
    log_event(
        logging.INFO,
        "query",
        f"Run the query {when}: mysql -N exam < query.sql | python -m app recover {how}",
        not_before=timestamp(latest),
    )
    return ExitCode.OK
