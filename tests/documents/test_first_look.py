"""README, "See it work": one line, in a clone and without any setting."""

import re

from tests.documents.clone import Clone
from tests.support import ROOT, Result, rows_of


def test_one_line_in_a_clone_shows_the_job_at_work(first_look: tuple[Clone, Result]) -> None:
    clone, result = first_look
    assert result.code == 0, result.stderr
    assert b"Done: 250 exams" in result.stderr
    assert len(rows_of((clone.directory / "expired.csv").read_bytes())) == 250


def test_the_faults_of_the_demo_lose_a_response(first_look: tuple[Clone, Result]) -> None:
    clone, _ = first_look
    (command,) = re.findall(r"`(demo --faults)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    result = clone.type(f".venv/bin/python -m app {command}")
    assert result.code == 65
    assert b"The response to an expire request was lost" in result.stderr
    assert len(result.rows) == 150
