"""Exams that Proctor changed and no CSV has: the query that finds them, and the CSV that they are written to."""

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from app import logs, settings
from app.exceptions import ExitCode, OutputFailed, UnexpectedResponse
from app.logs import log_event, timestamp
from app.model import Exam
from app.output.csv_report import csv_bytes
from app.output.files import give_to_owner_of, stem_of_run
from app.output.lock import LOCK, Lock
from app.output.past_runs import PastRun
from app.output.volume import unusable
from app.recovery.csvs import csvs_in, not_in
from app.recovery.found import Found, read_found, read_unverified, verify_time, verify_zone_is_known
from app.recovery.known import known_exams
from app.recovery.log_rows import LogRow, read_log
from app.recovery.options import Options
from app.recovery.query import Period, query
from app.recovery.resolution import Resolution, finish, new_csv, resolve, write_csv
from app.recovery.texts import STDIN, write_stdout
from app.recovery.windows import bounds, read_runs, shown, warn_of_unreported
from app.signals import FIRST, Stop

_LIMIT = 100  # the exam service's expireExamLimit by default


def recover(options: Options, stop: Stop) -> int:
    """Do what the options say; return the exit code.

    Raises:
        Failure: it cannot be done. Then nothing was changed, or doing it again does the rest.
        Interrupted: a signal was received while something was read; nothing was changed.
    """
    _configure_logs()
    directory = options.directory
    if directory is None:
        if options.found or options.log:
            return _to_stdout(options, stop)
        return _print_query(options.windows, [], options)
    if options.log:
        return _take_log(directory, options.log, options, stop)
    if options.found:
        return _take_found(directory, options.found, options, stop)
    if options.acknowledge is not None:
        return _acknowledge(directory, options.acknowledge)
    return _query_for(directory, options)


def _configure_logs() -> None:
    """Take LOG_LEVEL and LOG_FORMAT from the environment. No other setting is needed, so none is looked up."""
    nowhere = Path(os.devnull)
    environment = {name: os.environ[name] for name in ("LOG_LEVEL", "LOG_FORMAT") if name in os.environ}
    configuration = settings.read(environment, secrets_dir=nowhere, dotenv=nowhere / "none")
    logs.configure(configuration["LOG_LEVEL"].value, configuration["LOG_FORMAT"].value)


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold the lock on the directory, so that no run changes it, and finish an earlier recovery that was killed.

    Not to be held while stdin is read: a query may take long, and no run can start.
    """
    try:
        is_new = not (directory / LOCK).exists()
        lock = Lock(directory)
        if is_new:
            give_to_owner_of(directory, directory / LOCK)
        try:
            finish(directory)
            yield
        finally:
            lock.release()
    except OSError as error:
        raise OutputFailed(f"Once this is fixed, run the same command again: {unusable(directory, error)}") from None


def _query_for(directory: Path, options: Options) -> int:
    runs, unresolved = read_runs(directory)
    warn_of_unreported(directory)
    if not unresolved:
        return ExitCode.OK
    for window, (run, lost) in unresolved.items():
        log_event(
            logging.WARNING,
            "unresolved",
            f"Unresolved: {shown(window)}, in the run for {run.client_name} of {timestamp(run.started)}. Each lost"
            f" response can hold up to {_LIMIT} exams (expireExamLimit's default). Reason: {lost.reason}.",
            summary=run.summary.name,
            **bounds(window),
        )
    return _print_query(list(unresolved), runs, options)


def _print_query(windows: list[Period], runs: list[PastRun], options: Options) -> int:
    known = known_exams(runs, windows)
    if not known:
        log_event(
            logging.WARNING,
            "query",
            "No CSV here has an exam with which the time zone of the database could be verified; the query assumes"
            f" {options.zone.name}. Look up status_changed_at in exam.exam_event for an exam of any run: if it is not"
            " within the time of that run, print the query again with --database-zone.",
        )
    write_stdout(query(windows, known, options.zone).encode())
    latest = max(window.end for window in windows)
    when = "now" if latest <= datetime.now(UTC) else f"after {timestamp(latest)}, as Proctor may be working until then"
    how = f"{options.directory} --found -" if options.directory else "--found - --csv YOUR.csv"
    log_event(
        logging.INFO,
        "query",
        f"Run the query {when}: mysql -N exam < query.sql | python -m app recover {how}",
        not_before=timestamp(latest),
    )
    return ExitCode.OK


def _take_found(directory: Path, source: Path, options: Options, stop: Stop) -> int:
    with _held(directory):
        _, unresolved = read_runs(directory)
    if not unresolved:
        return ExitCode.OK
    found = _read_list(source, options, stop)
    with _held(directory):
        _, unresolved = read_runs(directory)
        covered = [window for window in unresolved if options.unverified or _is_covered(window, found)]
        verify_time(found, covered)
        with stop.interruptible(FIRST):
            exams = not_in([*csvs_in(directory), *options.csvs], found.exams.values())
        if not exams and not options.unverified:
            verify_zone_is_known(found)
        if covered:
            _resolve_by(directory, exams, covered, unresolved[covered[0]][0])
    others = [window for window in unresolved if window not in covered]
    for window in others:
        message = f"Still unresolved, as the query did not ask for it: {shown(window)}. Print the query again."
        log_event(logging.ERROR, "unresolved", message, **bounds(window))
    return ExitCode.RESPONSES_LOST if others else ExitCode.OK


def _read_list(source: Path, options: Options, stop: Stop) -> Found:
    with stop.interruptible(FIRST):  # where mysql asks for a password, say
        return read_unverified(source) if options.unverified else read_found(source)


def _is_covered(window: Period, found: Found) -> bool:
    return any(asked.window.holds(window) for asked in found.asked)


def _resolve_by(directory: Path, exams: list[Exam], windows: list[Period], run: PastRun) -> None:
    csv = new_csv(directory, run.summary.stem, "recovered") if exams else None
    how = f"recovered: {_count(exams) if exams else 'no exam was missing'}"
    if len(windows) > 1:
        how += f" of {len(windows)} windows"
    if csv:
        how += f", in {csv.name}"
    resolution = Resolution(windows, how, timestamp(datetime.now(UTC)), csv.name if csv else None, len(exams))
    resolve(directory, resolution, exams)
    _log_resolved(resolution)


def _acknowledge(directory: Path, note: str) -> int:
    with _held(directory):
        _, unresolved = read_runs(directory)
        if unresolved:
            at = timestamp(datetime.now(UTC))
            resolution = Resolution(list(unresolved), f"acknowledged: {note}", at, csv=None, exams=None)
            resolve(directory, resolution, [])
            _log_resolved(resolution)
    return ExitCode.OK


def _log_resolved(resolution: Resolution) -> None:
    for window in resolution.windows:
        log_event(
            logging.INFO,
            "resolved",
            f"Resolved: {shown(window)} ({resolution.how}).",
            **bounds(window),
            csv=resolution.csv,
            exams=resolution.exams,
        )


def _take_log(directory: Path, source: Path, options: Options, stop: Stop) -> int:
    with stop.interruptible(FIRST):
        log = read_log(source)
    with _held(directory):
        with stop.interruptible(FIRST):
            exams = not_in([*csvs_in(directory), *options.csvs], [row.exam for row in log.rows])
        missing, by_run = set(exams), dict[str, list[Exam]]()
        for row in log.rows:
            if row.exam in missing:
                missing.remove(row.exam)
                by_run.setdefault(stem_of_run(directory, row.at), []).append(row.exam)
        for stem, rows in by_run.items():
            csv = new_csv(directory, stem, "from_log")
            write_csv(csv, rows)
            message = f"Recovered from the log: {_count(rows)}, in {csv.name}."
            log_event(logging.INFO, "recovered", message, csv=csv.name, exams=len(rows))
        warn_of_unreported(directory)
    return _end_of_log(log.rows, exams, log.unreadable)


def _end_of_log(rows: list[LogRow], exams: list[Exam], unreadable: int) -> int:
    if not exams:
        message = f"Nothing to recover: each of the log's unwritten rows ({len(rows):,}) is already in a CSV."
        log_event(logging.INFO, "recovered", message)
    if unreadable:
        raise UnexpectedResponse(
            f"Rows of the log that cannot be read: {unreadable}, see above; all others are in a CSV. Recover these"
            " exams by the window of that run, or add the rows by hand."
        )
    return ExitCode.OK


def _to_stdout(options: Options, stop: Stop) -> int:
    if not options.csvs:
        message = "No --csv was given: exams that are already in a CSV are printed again."
        log_event(logging.WARNING, "recovered", message)
    if options.log:
        with stop.interruptible(FIRST):
            log = read_log(options.log)
            exams = not_in(options.csvs, [row.exam for row in log.rows])
        _print_csv(exams)
        return _end_of_log(log.rows, exams, log.unreadable)
    found = _read_list(options.found or STDIN, options, stop)
    verify_time(found, [*options.windows, *(asked.window for asked in found.asked)])
    with stop.interruptible(FIRST):
        exams = not_in(options.csvs, found.exams.values())
    if not exams and not options.unverified:
        verify_zone_is_known(found)
    _print_csv(exams)
    return ExitCode.OK


def _print_csv(exams: list[Exam]) -> None:
    write_stdout(csv_bytes([Exam._fields, *exams]))
    log_event(logging.INFO, "recovered", f"Recovered: {_count(exams)}, in the CSV on stdout.", exams=len(exams))


def _count(exams: Collection[Exam]) -> str:
    return f"{len(exams):,} {'exam' if len(exams) == 1 else 'exams'}"
