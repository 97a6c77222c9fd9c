"""Holds all that the jobs of a trial wrote against the record of the server."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import quote, quote_plus

from tests.support import rows_of
from tests.tools.alarms import Causes, Window, kind_of
from tests.tools.exit_codes import exit_problems
from tests.tools.scenarios import READ_TIMEOUT
from tests.tools.trial import Trial


@dataclass
class Tally:
    """What happened, and what must not."""

    counts: Counter[str] = field(default_factory=Counter)
    false_alarms: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    disturbances: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    exit_codes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def merge(self, other: "Tally") -> None:
        for name, value in vars(self).items():
            if isinstance(value, Counter):
                value.update(getattr(other, name))
        self.broken += other.broken


class Verdict:
    """The judgement on a trial that has been played."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.record = trial.simulator.record
        self.tally = Tally(broken=list(trial.problems))
        self.logs = [
            [json.loads(line) for line in job.log.read_text().splitlines()] if job.log and job.log.exists() else []
            for job in trial.jobs
        ]
        self.events = list(chain(*self.logs))
        self.csvs = {path.name: path.read_bytes() for path in sorted(trial.directory.glob("*.csv"))}
        self.summaries = {
            path.with_suffix(".csv").name: json.loads(path.read_bytes()) for path in trial.directory.glob("*.json")
        }
        self._judge()

    @property
    def something_is_lost(self) -> bool:
        """Whether an exam is in no CSV."""
        return bool(self.tally.counts["responses lost and reported"] or self.tally.counts["rows in the log"])

    def broken(self, what: str, found: object) -> None:
        if found:
            self.tally.broken.append(f"seed {self.trial.seed}: {what}: {found}"[:3000])

    def _judge(self) -> None:
        counts, record = self.tally.counts, self.record
        reports, logged = self._reports(), self._logged()
        rows = Counter(chain(*reports, logged))
        changed = Counter(exam for call in record for exam in call["expired"])
        lost = [call for call in record if set(call["expired"]) - rows.keys()]
        unnamed = [call for call in lost if not any(self._holds(window, call) for window in self._reported())]
        missing = {exam for call in unnamed for exam in call["expired"]} - rows.keys()
        # A response that a server repeats to the next job cannot be seen through; within a job it is.
        repeats = any(call["fault"] == "repeat" for call in record)
        duplicated = [
            exam
            for counted in (map(Counter, reports) if repeats else [rows])
            for exam, number in counted.items()
            if number > 1 and exam in changed
        ]
        self.broken("exams duplicated", duplicated)
        self.broken("exams missing outside a reported window", missing)
        self.broken("responses lost and not reported", unnamed)
        self.broken("rows without an exam", self._invented(rows.keys() - changed.keys()))
        if not any(_took_too_long(call) for call in record):
            self.broken("exams changed twice", [exam for exam, number in changed.items() if number > 1])
            self.broken("two calls at work at the same time", list(self._overlaps()))
        self.broken("secrets", list(self._secrets()))
        self.broken("tracebacks", [event for event in self.events if "traceback" in event])
        self.broken("unfinished files", [path.name for path in self._unfinished()])
        self._judge_summaries()
        self._judge_windows(lost)
        for job, log in zip(self.trial.jobs, self.logs, strict=True):
            self.broken(
                f"exit code {job.code} ({job.disturbance}, {job.step})", list(exit_problems(self.trial, job, log))
            )

        counts["runs"] += 1
        counts["jobs"] += len(self.trial.jobs)
        counts["calls"] += len(record)
        counts["exams changed"] += len(changed)
        counts["rows in a CSV"] += rows.total() - len(logged)
        counts["rows in the log"] += len(logged)
        counts["responses lost and reported"] += len(lost) - len(unnamed)
        counts["PROMISED 0: exams duplicated"] += len(duplicated)
        counts["PROMISED 0: exams missing outside a window"] += len(missing)
        counts["PROMISED 0: responses lost and not reported"] += len(unnamed)
        counts["PROMISED 0: false alarms that could be avoided"] += 0
        self.tally.faults.update(call["fault"] for call in record)
        self.tally.disturbances.update(job.disturbance for job in self.trial.jobs)
        self.tally.exit_codes.update(str(job.code) for job in self.trial.jobs)
        self.tally.steps.update(
            f"{job.sabotage.what}{' once' * job.sabotage.once}: {kind_of(job.step)}"
            for job in self.trial.jobs
            if job.sabotage
        )

    def _reports(self) -> list[list[str]]:
        """The exam ids of each CSV."""
        outputs = [pipe.received for pipe in self.trial.pipes] + list(self.csvs.values())
        outputs += [path.read_bytes() for path in self.trial.directory.glob("stdout-*") if path.is_file()]
        if self.trial.storage_failed:
            outputs = [complete_rows(output) for output in outputs]
        return [[row["examId"] for row in rows_of(output)] for output in outputs if output]

    def _logged(self) -> list[str]:
        """The exam ids of the rows in the log, without those in a CSV where the log says that they may be there."""
        in_a_csv = set(chain(*self._reports()))
        logged = []
        for log in self.logs:
            ids = [next(csv.reader([event["row"]]))[2] for event in log if event["event"] == "unwritten_row"]
            not_taken_back = any(event["event"] == "not_taken_back" for event in log)
            logged += [exam for exam in ids if not (not_taken_back and exam in in_a_csv)]
        return logged

    def _reported(self) -> set[Window]:
        """The windows where an operator finds them: in the summaries, or else in the log."""
        windows = {Window.of(one, one["reason"]) for summary in self.summaries.values() for one in summary["lost"]}
        if self.trial.storage_failed or self.trial.output != "volume":
            windows |= self._logged_windows()
        return windows

    def _logged_windows(self) -> set[Window]:
        return {
            Window.of(event, event.get("reason", "the run was killed"))
            for event in self.events
            if event["event"] in ("response_lost", "killed_run") and "start" in event
        }

    def _holds(self, window: Window, call: dict[str, Any]) -> bool:
        """Whether the call's work is in a window, by the clock of the server or by a job's that was wrong."""
        at = datetime.fromisoformat(call["changed"])
        ahead = timedelta(seconds=self.trial.seconds_ahead)
        return window.start <= at <= window.end or window.start <= at + ahead <= window.end

    def _invented(self, unknown: set[str]) -> set[str]:
        if any(call["fault"] == "malformed-records" for call in self.record):
            return {exam for exam in unknown if exam.startswith(f"{self.trial.seed:08x}-")}
        return unknown

    def _overlaps(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        working = sorted((call for call in self.record if "changed" in call), key=lambda call: str(call["start"]))
        for number, call in enumerate(working):
            yield from ((call, later) for later in working[number + 1 :] if later["start"] < call["changed"])

    def _secrets(self) -> Iterator[tuple[str, str]]:
        """What was written with a secret in it, in whichever form."""
        known = self.trial.scenario.credentials
        secrets = [known["client_secret"], known["password"], self.trial.heartbeat_secret, *self.trial.simulator.issued]
        forms = {
            form.encode()
            for secret in secrets
            for form in (secret, json.dumps(secret)[1:-1], quote(secret), quote_plus(secret), repr(secret)[1:-1])
        }
        for path in self.trial.directory.iterdir():
            if path.is_file() and path.suffix != ".pem":
                content = path.read_bytes()
                yield from ((path.name, form.decode()) for form in forms if form in content)

    def _unfinished(self) -> Iterator[Any]:
        yield from self.trial.directory.glob("*.partial")
        yield from self.trial.directory.glob("*.tmp")

    def _judge_summaries(self) -> None:
        if self.trial.storage_failed or self.trial.output != "volume":
            return
        self.broken("CSVs or summaries alone", self.csvs.keys() ^ self.summaries.keys())
        for name in self.csvs.keys() & self.summaries.keys():
            counted, written = sum(self.summaries[name]["exams"].values()), len(rows_of(self.csvs[name]))
            self.broken(f"{name} counted", [(counted, written)] if counted != written else [])

    def _judge_windows(self, lost: list[dict[str, Any]]) -> None:
        windows = self._reported() | self._logged_windows()
        causes = Causes(self.trial, self.logs, self.summaries)
        for window in windows:
            if any(self._holds(window, call) for call in lost):
                self.tally.counts["windows with a loss"] += 1
                continue
            cause, avoidable = causes.of(window)
            self.tally.false_alarms[f"{'AVOIDABLE' if avoidable else 'unavoidable'}: {cause}"] += 1
            if avoidable:
                self.tally.counts["PROMISED 0: false alarms that could be avoided"] += 1
                self.broken("a false alarm that could be avoided", (cause, window[2], *map(str, window[:2])))


def _took_too_long(call: dict[str, Any]) -> bool:
    """Whether Proctor was longer at work than READ_TIMEOUT says, as this machine was busy."""
    if "changed" not in call:
        return False
    start, changed = (datetime.fromisoformat(call[name]) for name in ("start", "changed"))
    return (changed - start).total_seconds() > READ_TIMEOUT - 0.1


def complete_rows(content: bytes) -> bytes:
    """Without the truncated row that a disk leaves which neither takes the rest nor gives it back."""
    head, line_break, _ = content.rpartition(b"\r\n")
    return head + line_break
