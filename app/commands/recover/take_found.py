"""The second step: the exams that the query found, or a note, resolve the windows."""

import logging
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from app.commands.recover.held import held
from app.commands.recover.options import Options
from app.exceptions import ExitCode
from app.logs import log_event
from app.model import Exam, Period, timestamp
from app.output.files import unused_csv
from app.output.past_runs import PastRun
from app.output.summary import plural
from app.recovery.candidates import candidates, without_source
from app.recovery.csvs import csvs_in, not_in, same_exam
from app.recovery.found import Found, read_found, read_unverified, verify_time
from app.recovery.resolution import Resolution, resolve
from app.recovery.windows import read_runs
from app.signals import FIRST, Stop


def take_found(directory: Path, source: Path, options: Options, stop: Stop) -> int:
    """Write the exams of a list that are in no CSV to one of their own, and resolve the windows that it covers."""
    with held(directory):
        _, unresolved = read_runs(directory)
    if not unresolved:
        return ExitCode.OK
    found = read_list(source, options, stop)
    with held(directory):
        runs, unresolved = read_runs(directory)
        is_from_elsewhere = options.unverified and not found.asked
        covered = [window for window in unresolved if is_from_elsewhere or _is_covered(window, found)]
        asked = [asked.window for asked in found.asked]
        csvs = csvs_in(directory)
        if found.known and not options.unverified:  # otherwise its times may be any
            csvs = candidates(csvs, runs, asked)
        csvs = [*without_source(csvs, source), *options.csvs]
        exams = missing_exams(found, covered, csvs, stop)
        if covered:
            _resolve_by(directory, exams, covered, unresolved[covered[0]][0])
    others = [window for window in unresolved if window not in covered]
    for window in others:
        log_event(
            logging.ERROR,
            "unresolved",
            f"Still unresolved, as the query did not ask for it: exams that Proctor changed {window}. Print the query"
            " again.",
            **window.bounds(),
        )
    return ExitCode.RESPONSES_LOST if others else ExitCode.OK


def read_list(source: Path, options: Options, stop: Stop) -> Found:
    """Read the result of the query, or a list from elsewhere."""
    with stop.interruptible(FIRST):  # where mysql asks for a password, say
        if options.unverified:
            return read_unverified(source)
        return read_found(source, trust_zone=options.trust_zone)


def missing_exams(found: Found, windows: Collection[Period], csvs: Iterable[Path], stop: Stop) -> list[Exam]:
    """The exams of a list that are in none of the CSVs.

    Raises:
        TooEarly: exams of these windows may have been changed after the query was run.
        OutputFailed: a CSV cannot be read.
    """
    verify_time(found, windows)
    with stop.interruptible(FIRST):
        return not_in(csvs, found.exams.values(), same_exam)


def _is_covered(window: Period, found: Found) -> bool:
    return any(asked.window.holds(window) for asked in found.asked)


def _resolve_by(directory: Path, exams: list[Exam], windows: list[Period], run: PastRun) -> None:
    csv = unused_csv(directory, f"{run.summary.stem}_recovered") if exams else None
    how = f"recovered: {plural(len(exams), 'exam') if exams else 'no exam was missing'}"
    if len(windows) > 1:
        how += f" of {len(windows)} windows"
    if csv:
        how += f", in {csv.name}"
    resolution = Resolution(windows, how, timestamp(datetime.now(UTC)), csv.name if csv else None, len(exams))
    resolve(directory, resolution, exams)
    _log_resolved(resolution)


def acknowledge(directory: Path, note: str) -> int:
    """Resolve all windows with a note."""
    with held(directory):
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
            f"Resolved: exams that Proctor changed {window} ({resolution.how}).",
            **window.bounds(),
            csv=resolution.csv,
            exams=resolution.exams,
        )
