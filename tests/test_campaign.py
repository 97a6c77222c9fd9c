"""The campaign, in short: the same runs each time, and a few that nobody has seen before."""

import pytest

from tests.tools.campaign import main


@pytest.mark.parametrize("arguments", [["--runs", "200", "--seed", "1"], ["--runs", "20"]], ids=["known", "fresh"])
def test_no_exam_is_lost_or_doubled_and_every_lost_answer_is_named(arguments: list[str]) -> None:
    assert main(arguments) == 0
