"""The promise, checked against the embedded Proctor's own record."""

from datetime import datetime
from typing import Any

from app.simulator import Simulator
from tests.embedded import EmbeddedProctor
from tests.support import Result, expired


def holds(window: dict[str, Any], time: str) -> bool:
    """Whether a window contains a time of the server's record."""
    start, end = (datetime.fromisoformat(window[side]) for side in ("start", "end"))
    return start <= datetime.fromisoformat(time) <= end


def changed(simulator: Simulator) -> list[str]:
    """The ids of all exams that the server changed, sorted."""
    return sorted(expired(simulator))


def assert_complete(simulator: Simulator, result: Result) -> None:
    """A run ended well: each exam of the server is in one row, and no loss was reported."""
    assert (result.code, result.summary["lost"]) == (0, []), result.stderr.decode()
    assert sorted(result.exam_ids) == changed(simulator)
    assert len(result.exam_ids) == simulator.scenario.exams


def assert_losses(simulator: EmbeddedProctor, result: Result, count: int = 1) -> None:
    """A run lost so many responses: the exams that are in no row were changed in the windows that it reported.

    All other exams that the server changed are in exactly one row.
    """
    simulator.wait_idle()
    assert (result.code, len(result.summary["lost"])) == (65, count), result.stderr.decode()
    assert len(set(result.exam_ids)) == len(result.exam_ids)
    calls = [call for call in simulator.record if set(call["expired"]) - set(result.exam_ids)]
    missing = [exam_id for call in calls for exam_id in call["expired"]]
    assert sorted(result.exam_ids + missing) == changed(simulator)
    for window, call in zip(result.summary["lost"], calls, strict=True):
        assert holds(window, call["changed"])


def assert_alarm(simulator: Simulator, result: Result) -> None:
    """A run reported a loss that it could not rule out, although nothing had reached the server."""
    assert result.code == 65, result.stderr.decode()
    assert len(result.summary["lost"]) == 1
    assert simulator.record == []
