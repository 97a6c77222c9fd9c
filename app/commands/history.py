"""The runs of a volume as a table, newest last, and whether anything about them is wrong or unresolved."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.exceptions import ExitCode
from app.model import timestamp
from app.output.files import name_in_files
from app.output.past_runs import PastRun, UnfinishedRun, past_runs, unfinished_runs, unresolved_windows
from app.output.volume import unusable
from app.streams import print_line

_COLUMNS = "{:<20}  {:<{width}}  {:<11} {:>4} {:>8} {:>9} {:>7} {:>6} {:>4} {:>8}  {}"
_BAR = 30  # characters of the longest bar
_CLOCKS_DIFFER = timedelta(minutes=5)


def history(directory: Path, max_age: timedelta | None) -> int:
    """Print the table and what is wrong; return 0 if nothing is.

    Wrong is: a directory that cannot be listed, or has neither a summary nor a run under way; a window that is
    unresolved, a summary that cannot be read and may list one, a run that was killed and none after it, and a client
    whose last run failed or ended longer than `max_age` ago.
    """
    try:
        runs, unreadable = past_runs(directory)
        unfinished = unfinished_runs(directory)
    except OSError as error:
        print_line(unusable(directory, error))
        return ExitCode.PROBLEMS_FOUND
    if runs:
        _print_table(runs)
    problems = [*unreadable, *_lost(runs, directory), *_killed(unfinished), *_last_runs(runs, max_age)]
    if not runs and not problems and not unfinished:
        problems = [f"There is no summary of a run in {directory}."]
    for problem in problems:
        print_line(problem)
    return ExitCode.PROBLEMS_FOUND if problems else ExitCode.OK


def _print_table(runs: list[PastRun]) -> None:
    width = max(6, *(len(run.client_name) for run in runs))
    most = max(run.exams for run in runs) or 1
    titles = ("outcome", "code", "expired", "completed", "unknown", "calls", "lost", "time", "exams")
    print_line(_COLUMNS.format("started", "client", *titles, width=width))
    for run in runs:
        bar = "#" * -(-run.exams * _BAR // most)
        print_line(_COLUMNS.format(*_cells(run), bar, width=width).rstrip())
    resolved = [window for run in runs for window in run.lost if window.resolved]
    for period, how in dict.fromkeys((window.period, window.resolved) for window in resolved):
        print_line(f"From {timestamp(period.start)} to {timestamp(period.end)}: {how}.")


def _cells(run: PastRun) -> tuple[object, ...]:
    seconds = (run.ended - run.started).total_seconds() if run.ended else None
    return (
        f"{run.started:%Y-%m-%dT%H:%M:%SZ}",
        run.client_name,
        run.outcome,
        _or_dash(run.exit_code),
        run.expired,
        run.completed,
        run.unknown,
        _or_dash(run.calls),
        len(run.lost),
        _or_dash(None if seconds is None else timedelta(seconds=round(seconds))),
    )


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _lost(runs: list[PastRun], directory: Path) -> Iterator[str]:
    windows = unresolved_windows(runs)
    for period, (_, window) in windows.items():
        yield f"Unresolved: exams that Proctor changed {period} may be in no CSV ({window.reason})."
    if windows:
        yield f"Recover them: python -m app recover {directory}"


def _killed(unfinished: list[UnfinishedRun]) -> Iterator[str]:
    for run in unfinished:
        if run.under_way:
            print_line(str(run))
        else:
            yield str(run)


def _last_runs(runs: list[PastRun], max_age: timedelta | None) -> Iterator[str]:
    now = datetime.now(UTC)
    newest: dict[str, PastRun] = {}
    for run in runs:
        if run.started > now + _CLOCKS_DIFFER:
            print_line(f"{run.summary.name} is ignored: its run started in the future, so a clock is or was wrong.")
        else:
            newest[name_in_files(run.client_name)] = run  # as a killed run's summary has it
    for run in newest.values():
        if not run.ended_well:
            how = "was killed" if run.exit_code is None else f"ended with exit code {run.exit_code}"
            cure = "" if run.unresolved else " The next run that ends well clears this."
            yield f"The last run for {run.client_name} {how}. {run.message}{cure}"
        elif max_age is not None and (age := now - (run.ended or run.started)) > max_age:
            yield (
                f"The last run for {run.client_name} ended {age / timedelta(hours=1):,.1f} hours ago, more than the"
                f" {max_age / timedelta(hours=1):g} of --max-age. Check the scheduler, and in the log of the job"
                " whether a later run failed before it could begin."
            )
    if runs and not newest:
        yield "All runs started in the future: check the clocks."
