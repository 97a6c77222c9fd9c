"""The exit code of every end of a run, in one table."""

from signal import SIGINT, SIGTERM

import pytest

from app.exceptions import (
    Busy,
    CredentialsRejected,
    Ending,
    Failure,
    Misconfigured,
    Outcome,
    OutputFailed,
    TooManyLost,
    Unavailable,
    UnexpectedResponse,
    exit_code,
)


@pytest.mark.parametrize("fail_on_no_progress", [False, True])
@pytest.mark.parametrize(
    ("ending", "without_loss", "with_loss"),
    [
        (Ending(Outcome.DRAINED), 0, 65),
        (Ending(Outcome.TIME_LIMIT), 75, 65),
        (Ending(Outcome.INTERRUPTED, signum=SIGTERM), 143, 65),
        (Ending(Outcome.INTERRUPTED, signum=SIGINT), 130, 65),
        (Ending(Outcome.FAILED, TooManyLost("")), 65, 65),
        (Ending(Outcome.FAILED, Unavailable("")), 69, 65),
        (Ending(Outcome.FAILED, Failure("")), 70, 70),
        (Ending(Outcome.FAILED, OutputFailed("")), 74, 74),
        (Ending(Outcome.FAILED, Busy("")), 75, 65),
        (Ending(Outcome.FAILED, UnexpectedResponse("")), 76, 76),
        (Ending(Outcome.FAILED, CredentialsRejected("")), 77, 77),
        (Ending(Outcome.FAILED, Misconfigured("")), 78, 78),
    ],
)
def test_each_end_of_a_run_has_its_exit_code(
    ending: Ending, without_loss: int, with_loss: int, fail_on_no_progress: bool
) -> None:
    for responses_lost, code in ((False, without_loss), (True, with_loss)):
        assert exit_code(ending, responses_lost=responses_lost, fail_on_no_progress=fail_on_no_progress) == code


@pytest.mark.parametrize(
    ("responses_lost", "fail_on_no_progress", "code"),
    [(False, False, 0), (False, True, 75), (True, False, 65), (True, True, 65)],
)
def test_no_progress_fails_only_where_it_is_to(responses_lost: bool, fail_on_no_progress: bool, code: int) -> None:
    ending = Ending(Outcome.NO_PROGRESS)
    assert exit_code(ending, responses_lost=responses_lost, fail_on_no_progress=fail_on_no_progress) == code
