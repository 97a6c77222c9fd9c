"""What a run loads before its first call: each module is time that Proctor waits for it."""

import re
from collections.abc import Callable

from app.simulator import Simulator
from tests.conftest import Result

SLOW = {"tenacity", "dataclasses", "dotenv", "argparse", "difflib", "app.simulator"}


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
