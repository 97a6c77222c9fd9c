"""What an operator does when a trial is over: the two commands of the README, against a real database."""

import os
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from app.exceptions import ExitCode
from app.model import timestamp
from tests.recover.database import PROGRAMS, Database, find
from tests.recover.shell import operator_shell
from tests.support import Result, rows_of
from tests.tools.trial import Trial
from tests.tools.verdict import Tally, complete_rows

NO_DATABASE = (
    "There is no MariaDB (Debian: mariadb-server): no exams of lost responses are recovered, and that none is missing"
    " after that is not verified."
)
MISSING = "PROMISED 0: exams missing after recovery"

_LONGEST_WAIT = 5  # seconds to the end of a window; those that end later are of a clock that was wrong
_SECOND = timedelta(seconds=1)
_OTHER_ZONE = re.compile(r"--database-zone=([+-]\d\d:\d\d)")


def database_is_here() -> bool:
    """Whether MariaDB is installed.

    Raises:
        RuntimeError: it is not, in CI.
    """
    is_here = all(map(find, PROGRAMS))
    if not is_here and os.environ.get("CI"):
        raise RuntimeError(NO_DATABASE)
    return is_here


class Recovery:
    """The recovery of a trial that has been played, on the volume that its jobs had."""

    def __init__(self, trial: Trial, database: Database, place: Path) -> None:
        """Recovers, and judges; files of the operator are written to `place`."""
        self.tally = Tally()
        self._trial = trial
        self._shell = operator_shell(place, database)
        database.empty()
        database.fill(trial.simulator.exam_events(), UTC, whole_seconds=trial.seed % 2 == 0)
        self._take_logs()
        self._take_found()
        self._judge()

    def _take_logs(self) -> None:
        logs = [job.log for job in self._trial.jobs if job.log and job.log.exists()]
        if any(b'"unwritten_row"' in log.read_bytes() for log in logs):
            self._run(f"cat {' '.join(map(str, logs))} | python -m app recover {self._trial.directory} --log -")

    def _take_found(self, zone: str = "UTC") -> None:
        """Print the query, wait until it can be run, and take in its result; do what a message says."""
        directory, counts = self._trial.directory, self.tally.counts
        printed = self._run(f"python -m app recover {directory} --database-zone={zone} > query.sql")
        asked = [event for event in printed.events("query") if "not_before" in event]
        if not asked:
            return None
        ahead = _wait_until(datetime.fromisoformat(asked[-1]["not_before"]) + _SECOND)
        take = partial(self._shell, ahead=ahead)
        taken = take(f"mysql -N exam < query.sql | python -m app recover {directory} --found -")
        other = _OTHER_ZONE.search(taken.stderr.decode())
        if taken.code == ExitCode.UNEXPECTED_RESPONSE and b"--trust-zone" in taken.stderr:
            counts["recovered without an exam to verify the time zone by"] += 1
            taken = take(f"mysql -N exam < query.sql | python -m app recover {directory} --found - --trust-zone")
        elif taken.code == ExitCode.UNEXPECTED_RESPONSE and other and zone == "UTC" and self._trial.seconds_ahead:
            counts["recovered with another time zone, as a clock was wrong"] += 1
            return self._take_found(other[1])
        elif taken.code == ExitCode.UNEXPECTED_RESPONSE and other and self._trial.seconds_ahead:
            counts["recovered by a wide window, as the clock was wrong in a whole run"] += 1
            taken = self._take_wide(printed.events("unresolved"))
        if taken.code != ExitCode.OK:
            self._broken(taken)
        counts["windows recovered"] += len(taken.events("resolved"))

    def _take_wide(self, windows: list[dict[str, str]]) -> Result:
        """Runs whose clocks differ fit no time zone: ask for all the time around their windows."""
        wrong = timedelta(seconds=abs(self._trial.seconds_ahead))
        start = datetime.fromisoformat(min(window["start"] for window in windows)) - wrong
        end = datetime.fromisoformat(max(window["end"] for window in windows)) + wrong
        self._run(f"python -m app recover --window {timestamp(start)} {timestamp(end)} > query.sql")
        take = f"mysql -N exam < query.sql | python -m app recover {self._trial.directory} --found - --trust-zone"
        return self._shell(take, ahead=_wait_until(end + _SECOND))

    def _run(self, line: str) -> Result:
        result = self._shell(line)
        if result.code != ExitCode.OK:
            self._broken(result)
        return result

    def _broken(self, found: object) -> None:
        self.tally.broken.append(f"seed {self._trial.seed}: recovery: {found}"[:3000])

    def _judge(self) -> None:
        counts, record = self.tally.counts, self._trial.simulator.record
        changed = {exam for call in record for exam in call["expired"]}
        csvs = {path.name: self._ids_in(path) for path in self._trial.directory.glob("*.csv")}
        rows = sum(csvs.values(), Counter[str]())
        repeats = any(call["fault"] == "repeat" for call in record)  # see `Verdict`
        if missing := changed - rows.keys():
            self._broken(f"{len(missing)} exams missing: {sorted(missing)}")
        if duplicated := [exam for exam in changed if rows[exam] > 1 and not repeats]:
            self._broken(f"{len(duplicated)} exams duplicated: {duplicated}")
        for problem in self._problems_of_history():
            self._broken(problem)
        counts["volumes recovered"] += 1
        counts["exams recovered from the database"] += sum(
            ids.total() for name, ids in csvs.items() if "_recovered" in name
        )
        counts["exams recovered from the log"] += sum(ids.total() for name, ids in csvs.items() if "_from_log" in name)
        counts[MISSING] += len(missing)

    def _ids_in(self, path: Path) -> Counter[str]:
        content = path.read_bytes()
        if self._trial.storage_failed:
            content = complete_rows(content)
        return Counter(row["examId"] for row in rows_of(content))

    def _problems_of_history(self) -> list[str]:
        """What `history` finds, other than how the last run ended."""
        history = self._shell(f"python -m app history {self._trial.directory}")
        if history.code == ExitCode.OK:
            return []
        lines = history.stdout.decode().splitlines()
        bad = re.compile(r"Unresolved: |.* belongs to a run that was killed")
        unresolved = [line for line in lines if bad.match(line)]
        excused = [line for line in lines if re.match("The last run for .* ended with exit code", line)]
        if self._trial.seconds_ahead:  # a run with a wrong clock may be taken for the last, or ignored as of the future
            wrong_clock = re.compile("The last run for .* was killed|All runs started in the future")
            excused += [line for line in lines if wrong_clock.match(line)]
        return unresolved if excused else [*unresolved, str(history)]


def _wait_until(time_: datetime) -> int:
    """Wait for a time that comes soon; returns how many seconds later it is where it does not."""
    seconds = (time_ - datetime.now(UTC)).total_seconds()
    if seconds > _LONGEST_WAIT:
        return 1 + int(seconds)
    time.sleep(max(seconds, 0))
    return 0
