"""The promise, checked against the embedded Proctor's own record."""

from datetime import datetime
from typing import Any

from app.simulator import Simulator
from tests.conftest import Result, expired


def changed(simulator: Simulator) -> list[str]:
    return sorted(expired(simulator))


def is_complete(simulator: Simulator, result: Result) -> bool:
    """Whether a run ended well, with each exam that the server changed in one row, and reported no loss."""
    assert (result.code, result.summary["lost"]) == (0, []), result.stderr.decode()
    assert sorted(result.exam_ids) == changed(simulator)
    return len(result.exam_ids) == simulator.world.exams


def lost_responses(simulator: Simulator, result: Result) -> list[dict[str, Any]]:
    """The windows of a run that lost responses, each of which must hold a call whose exams are in no row.

    And the other way round: each exam that the server changed is in exactly one row, or was changed in a window.
    """
    simulator.wait_idle()
    windows: list[dict[str, Any]] = result.summary["lost"]
    rows = set(result.exam_ids)
    assert len(rows) == len(result.exam_ids)
    missing = [call for call in simulator.record if set(call["expired"]) - rows]
    assert len(windows) == len(missing), result.stderr.decode()
    for window, call in zip(windows, missing, strict=True):
        start, end = (datetime.fromisoformat(window[side]) for side in ("start", "end"))
        assert start <= datetime.fromisoformat(call["changed"]) <= end
    return windows
