"""What a run loads, and when: each module is time before the first call, and one that fails late loses nothing."""

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from app.simulator import Simulator
from tests.conftest import ROOT, Result

SLOW = {"tenacity", "argparse", "app.simulator"}


def imported(result: Result) -> set[str]:
    assert result.code == 0
    return set(re.findall(r"^import time:.* (\S+)$", result.stderr.decode(), re.MULTILINE))


def test_what_is_slow_to_import_is_imported_when_it_is_needed(
    simulate: Callable[..., Simulator], run: Callable[..., Result]
) -> None:
    calm = imported(run(simulate(exams=1), PYTHONPROFILEIMPORTTIME="1"))
    rough = imported(run(simulate(exams=1, faults=["503"]), PYTHONPROFILEIMPORTTIME="1"))

    assert "requests" in calm
    assert not calm & SLOW
    assert "tenacity" in rough


def test_a_lost_answer_is_named_also_where_what_tries_again_cannot_be_loaded(
    simulate: Callable[..., Simulator], run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "tenacity.py").write_text("raise OSError('the disk is gone')")
    simulator = simulate(exams=300, faults=["ok", "reset-after"])

    result = run(simulator, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")

    assert result.code == 70
    assert sorted(result.exam_ids) == sorted(simulator.record[0]["expired"])
    (lost,) = result.summary["lost"]
    start, at, end = map(datetime.fromisoformat, (lost["start"], simulator.record[1]["start"], lost["end"]))
    assert start <= at <= end
    assert result.events("answer_lost")
