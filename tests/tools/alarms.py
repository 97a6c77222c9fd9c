"""Why a window was reported in which nothing was lost, and whether the job could have known."""

import re
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from tests.tools.processes import Job
from tests.tools.scenarios import READ_TIMEOUT, UNKNOWABLE_FAULTS
from tests.tools.trial import Trial

_MILLISECOND = timedelta(milliseconds=1)
_LATE = 0.1 * READ_TIMEOUT  # seconds from which on a rejection may be a timeout in disguise
_CLOCK_SET = 2.0  # seconds; a longer window holds the step of a clock
_WITHIN_A_CALL = re.compile(r"(write|fsync|lseek64|ftruncate64) .*\.partial|.* \.lock")  # steps: system call and file


class Window(NamedTuple):
    """A reported window."""

    start: datetime
    end: datetime
    reason: str

    @classmethod
    def of(cls, content: dict[str, Any], reason: str) -> "Window":
        return cls(datetime.fromisoformat(content["start"]), datetime.fromisoformat(content["end"]), reason)


class Causes:
    """Finds the causes of false alarms in what a trial left: the record, the logs of its jobs, their summaries."""

    def __init__(self, trial: Trial, logs: list[list[dict[str, Any]]], summaries: dict[str, Any]) -> None:
        """A log for each job; summaries by the name of the CSV."""
        self._trial = trial
        self._record = trial.simulator.record
        self._logs = logs
        self._summaries = summaries

    def of(self, window: Window) -> tuple[str, bool]:
        """What led to a window in which nothing was lost, and whether the job could have known."""
        if window.reason == "the run was killed":
            return self._cause_of_killed(window)
        if window.reason == "the CSV could not be written":
            return "the CSV could not be written, its rows are in the log", False
        if window.reason == "a second signal ended the call":
            return "second signal in a call", False
        return self._cause_by_faults(window)

    def _cause_by_faults(self, window: Window) -> tuple[str, bool]:
        calls = self._first_calls(window)
        names = [call["fault"] for call in calls]
        for name in names:
            if name in UNKNOWABLE_FAULTS:
                return name, False
        if {"repeat", "no-flag"} & set(names) and "not its list of exams" in window.reason:
            return "repeat of what is no list of exams, or a response without list and flag", False
        seconds = (window.end - window.start).total_seconds() - READ_TIMEOUT
        if "Proctor responded" in window.reason and _LATE <= seconds < _CLOCK_SET:
            return "rejected late, as this machine was busy", False
        if "no complete response within" in window.reason and any(_slow(call, window) for call in calls):
            return "responded after READ_TIMEOUT, as this machine was busy", False
        return f"{'/'.join(names) or 'no call'}: {window.reason}", True

    def _first_calls(self, window: Window) -> list[dict[str, Any]]:
        """The call that a window begins with; more where times in milliseconds, or a clock, do not show which."""
        found = []
        for ahead in {0, self._trial.seconds_ahead}:
            start, end = (time - timedelta(seconds=ahead) for time in window[:2])
            calls = [call for call in self._record if start <= datetime.fromisoformat(call["start"]) <= end]
            if calls:
                begins = datetime.fromisoformat(calls[0]["start"])
                found += calls[: 2 if begins - start <= _MILLISECOND else 1]
        return found

    def _cause_of_killed(self, window: Window) -> tuple[str, bool]:
        job, log = self._ended_job(window)
        if job and "storage" in job.disturbance:
            return "storage failed before the summary with the lost responses was written", False
        if not job:
            return "killed before the first call", True
        if lost := of_event(log, "response_lost"):
            return self._cause_by_faults(Window.of(lost[0], lost[0]["reason"]))
        if not job.step:
            return "killed by a signal in a call", False
        avoidable = not _WITHIN_A_CALL.fullmatch(job.step) or not (job.calls or job.step.endswith(".lock"))
        return f"{job.disturbance}: {kind_of(job.step)}", avoidable

    def _ended_job(self, window: Window) -> tuple[Job | None, list[dict[str, Any]]]:
        """The job that left the window to a later one, with its log; None where it had not come to its first call."""
        reports = [(name, one) for name, summary in self._summaries.items() for one in summary["lost"]]
        events = chain(*self._logs)
        reports += [(event["csv"], event) for event in events if event["event"] == "killed_run" and "start" in event]
        names = {name for name, content in reports if Window.of(content, window.reason) == window}
        for job, log in zip(self._trial.jobs, self._logs, strict=True):
            if any(event["output"].endswith(name) for event in of_event(log, "start") for name in names):
                return job, log
        return None, []


def _slow(call: dict[str, Any], window: Window) -> bool:
    """Whether the server took longer over a call, or to receive it, than its scenario has it."""
    start, end = (datetime.fromisoformat(call[name]) for name in ("start", "end"))
    on_the_way = (start - window.start).total_seconds()
    took = (end - start).total_seconds() + (on_the_way if on_the_way < _CLOCK_SET else 0)
    return took > READ_TIMEOUT / 2


def of_event(log: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in log if event["event"] == name]


def kind_of(step: str) -> str:
    """A step without the name of the run."""
    return re.sub(r" \S*?(\.csv\.partial|\.json\.tmp|\.json|\.csv|\.lock)?$", r" \1", step) if step else "not reached"
