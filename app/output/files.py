"""The files of a volume: their names, and how one is made for its owner alone, durable, and complete or not at all."""

import json
import os
import re
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

PARTIAL = ".partial"

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"expired_exams_(.*)_(\d{8}T\d{6}Z)(?:_\d+)?\.csv")


class RunName(NamedTuple):
    """What the name of a run's CSV says."""

    client: str
    started: datetime


def name_in_files(client_name: str) -> str:
    """A client name as the names of its files have it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", client_name)[:64]


def new_csv(directory: Path, client_name: str) -> Path:
    """A name that no file of an earlier run has, also where two runs begin in the same second."""
    stem = f"expired_exams_{name_in_files(client_name)}_{datetime.now(UTC):{_STAMP}}"
    for number in count(1):
        path = directory / (stem + (f"_{number}" if number > 1 else "") + ".csv")
        if not any(taken.exists() for taken in (path, summary_of(path), partial_of(path))):
            return path
    raise AssertionError("unreachable")


def run_name(csv: Path) -> RunName | None:
    """What the name of a run's CSV says; None for any other file."""
    name = _NAME.fullmatch(csv.name)
    try:
        return RunName(name[1], datetime.strptime(name[2], _STAMP).replace(tzinfo=UTC)) if name else None
    except ValueError:
        return None


def stem_of_run(directory: Path, moment: datetime) -> str:
    """What the files of the run are called that was under way at a moment; without one, what they would be called."""
    stems = {path.name.partition(".")[0] for path in directory.glob("expired_exams_*")}
    runs = [
        (name.started, stem) for stem in stems if (name := run_name(Path(f"{stem}.csv"))) and name.started <= moment
    ]
    return max(runs)[1] if runs else f"expired_exams_{moment.astimezone(UTC):{_STAMP}}"


def partial_of(csv: Path) -> Path:
    """Where the rows of a run are until it ends."""
    return csv.with_name(csv.name + PARTIAL)


def partials_in(directory: Path) -> dict[Path, RunName]:
    """The CSVs without their final name, in order, and what their names say.

    Those are of runs that are under way, were killed, or have left the rest of their end to the next run.
    """
    paths = sorted(directory.glob(f"expired_exams_*.csv{PARTIAL}"))
    return {path: name for path in paths if (name := run_name(path.with_suffix(""))) and path.is_file()}


def summary_of(csv: Path) -> Path:
    """Where the summary of a run is."""
    return csv.with_suffix(".json")


def opener(path: str, flags: int) -> int:
    """For `open`: creates files that only user and group can read, as they hold student ids."""
    return os.open(path, flags | os.O_CREAT, 0o640)


def give_to_owner_of(path: Path, new: Path) -> None:
    """If root wrote a new file, give it the owner of another one: otherwise the job could not read it."""
    if sys.platform != "win32" and os.geteuid() == 0:
        owner = path.stat()
        os.chown(new, owner.st_uid, owner.st_gid)


def write_json(target: Path, content: dict[str, Any]) -> None:
    """Put a JSON file in its place, durable, complete or not at all; raises OSError."""
    draft = target.with_name(target.name + ".tmp")
    try:
        with open(draft, "w", encoding="utf-8", opener=opener) as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            give_to_owner_of(target, draft)
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
    finally:
        os.close(descriptor)
