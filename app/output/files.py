"""The files of a volume: their names, and how one is made for its owner alone, durable, and complete or not at all."""

import errno
import json
import os
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

PARTIAL = ".partial"
DRAFT = ".tmp"

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"expired_exams_(.*)_(\d{8}T\d{6}Z)(?:_\d+)?\.csv")


class RunName(NamedTuple):
    """What the name of a run's CSV says."""

    client: str
    started: datetime


def name_in_files(client_name: str) -> str:
    """A client name as the names of its files have it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", client_name)[:64]


def csv_of_new_run(directory: Path, client_name: str) -> Path:
    """Where the CSV of a run that begins now will be."""
    return unused_csv(directory, f"expired_exams_{name_in_files(client_name)}_{datetime.now(UTC):{_STAMP}}")


def unused_csv(directory: Path, stem: str) -> Path:
    """The CSV called `stem`, followed by a number where another run already has that name."""
    csvs = (directory / f"{stem}{number}.csv" for number in chain([""], (f"_{n}" for n in count(2))))
    return next(csv for csv in csvs if not any(path.exists() for path in (csv, summary_of(csv), partial_of(csv))))


def run_name(csv: Path) -> RunName | None:
    """What the name of a run's CSV says; None for any other file."""
    name = _NAME.fullmatch(csv.name)
    try:
        return RunName(name[1], datetime.strptime(name[2], _STAMP).replace(tzinfo=UTC)) if name else None
    except ValueError:
        return None


def starts_of_runs(directory: Path) -> list[tuple[datetime, str]]:
    """When each run began, in order, with the stem of its files; raises OSError if the directory cannot be listed."""
    stems = {path.name.partition(".")[0] for path in matching(directory, "expired_exams_*")}
    return sorted((name.started, stem) for stem in stems if (name := run_name(Path(f"{stem}.csv"))))


def stem_of_run(starts: Sequence[tuple[datetime, str]], moment: datetime) -> str:
    """The stem of the files of the run that was under way at a moment; of one that began then where none was."""
    place = bisect_right(starts, moment, key=itemgetter(0))
    return starts[place - 1][1] if place else f"expired_exams_{moment.astimezone(UTC):{_STAMP}}"


def matching(directory: Path, pattern: str) -> list[Path]:
    """What a directory has under names like this, in order.

    Raises:
        OSError: it cannot be listed. To `Path.glob` it would be empty.
    """
    return sorted(directory / name for name in os.listdir(directory) if fnmatchcase(name, pattern))


def partial_of(csv: Path) -> Path:
    """Where the rows of a run are until it ends."""
    return csv.with_name(csv.name + PARTIAL)


def partials_in(directory: Path) -> dict[Path, RunName]:
    """The CSVs without their final name, in order, and what their names say.

    Those are of runs that are under way, were killed, or have left the rest of their end to the next run.

    Raises:
        OSError: the directory cannot be listed.
    """
    paths = matching(directory, f"expired_exams_*.csv{PARTIAL}")
    return {path: name for path in paths if (name := run_name(path.with_suffix(""))) and path.is_file()}


def summary_of(csv: Path) -> Path:
    """Where the summary of a run is."""
    return csv.with_suffix(".json")


def csv_of(summary: Path) -> Path:
    """Where the CSV is that a summary belongs to."""
    return summary.with_suffix(".csv")


def draft_of(path: Path) -> Path:
    """Where a file is written before it gets its name."""
    return path.with_name(path.name + DRAFT)


def opener(path: str, flags: int) -> int:
    """For `open`: creates files that only user and group can read, as they hold student ids."""
    return os.open(path, flags | os.O_CREAT, 0o640)


def give_to_owner_of(path: Path, new: Path) -> None:
    """If root wrote a new file, give it the owner of another one: otherwise the job could not read it."""
    if sys.platform != "win32" and os.geteuid() == 0:
        owner = path.stat()
        os.chown(new, owner.st_uid, owner.st_gid)


def write_draft(path: Path, chunks: Iterable[bytes], like: Path) -> Path:
    """Write the draft of a file, durable, complete or not at all, with the owner that `like` has; raises OSError."""
    draft = draft_of(path)
    try:
        with open(draft, "wb", opener=opener) as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        if like.exists():
            give_to_owner_of(like, draft)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def write_json(target: Path, content: dict[str, Any]) -> None:
    """Put a JSON file in its place, durable, complete or not at all; raises OSError."""
    draft = write_draft(target, [json.dumps(content, indent=2).encode(), b"\n"], like=target)
    try:
        draft.replace(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def sync_directory(directory: Path) -> None:
    """Make new names in the directory durable, if the system can do that; raises OSError."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # that is how a file system says that it has no such thing
            raise
    finally:
        os.close(descriptor)
