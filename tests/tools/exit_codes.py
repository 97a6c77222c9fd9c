"""Whether a job's exit code fits what it met and what it logged."""

from collections.abc import Iterator
from typing import Any

from app.exceptions import ExitCode
from tests.tools.processes import Job
from tests.tools.scenarios import CAUSES
from tests.tools.trial import Trial

_INVITES_RETRY = {ExitCode.OK, ExitCode.UNAVAILABLE, ExitCode.TRY_LATER}  # must not hide that responses were lost


def exit_problems(trial: Trial, job: Job, log: list[dict[str, Any]]) -> Iterator[str]:
    """What does not fit the exit code of a job."""
    code, disturbance = job.code, job.disturbance
    if code < 0:
        by_signal = "KILL" in disturbance or disturbance.endswith("at the start")
        if not by_signal and not disturbance.startswith("killed"):
            yield "it was killed"
        return
    if not log:
        return
    ends = [event for event in log if event["event"] == "end"]
    summary = ends[-1].get("summary") if ends else None
    if not ends:
        yield "the log has no end"
    elif not summary:
        if code not in (ExitCode.CONFIGURATION, 130, 143):
            yield "the log has no summary"
    else:
        yield from _summary_problems(job, log, summary)
    met = {call["fault"] for call in job.calls} | set(job.token_faults)
    if trial.scenario.token_calls or trial.scenario.token_seconds < 10:
        met.add("token-expired")
    if code in CAUSES and not met & CAUSES[code] and not disturbance.endswith("wrong"):
        yield f"no reason in {met}"
    if code == ExitCode.OUTPUT and not disturbance.startswith(("storage", "reader")) and " and " not in disturbance:
        yield "no output failed"
    if code == ExitCode.TRY_LATER and disturbance != "others at once":
        yield "no other run"
    if code == ExitCode.BUG:
        yield "a bug"


def _summary_problems(job: Job, log: list[dict[str, Any]], summary: dict[str, Any]) -> Iterator[str]:
    code, outcome, lost = job.code, summary["outcome"], summary["lost"]
    failed = [event for event in log if event["event"] in ("output_failed", "unwritten_row")]
    if summary["exit_code"] != code and not failed:
        yield f"the log says {summary['exit_code']}"
    if lost and (code in _INVITES_RETRY or code > 128):
        yield f"it hides {len(lost)} lost responses"
    if code == ExitCode.RESPONSES_LOST and not lost:
        yield "no response was lost"
    if code == ExitCode.OK and (failed or outcome not in ("drained", "no_progress")):
        yield f"{outcome}, {failed}"
    if code > 128 and outcome != "interrupted":
        yield str(outcome)
    if outcome == "interrupted" and not job.disturbance.startswith("SIG"):
        yield "nobody interrupted it"
