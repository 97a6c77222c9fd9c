"""The window of a lost response holds the time of the server's work, whatever the clocks did meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import Moment, Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
GRACE = 300.0
HOUR = 3600.0


def at(seconds: float, monotonic: float = 0, boot: str = "this") -> Moment:
    """A reading of the clocks, the wall clock's in seconds after noon."""
    return Moment(NOON + timedelta(seconds=seconds), monotonic, boot)


def window_of(began: Moment, now: Moment, longest: float = float("inf")) -> tuple[float, float]:
    """Start and end of the window, in seconds after noon."""
    window = Window.of_call(began, now, "?", grace=GRACE, longest=longest)
    assert window.start <= window.end
    return (window.start - NOON).total_seconds(), (window.end - NOON).total_seconds()


def test_the_window_of_a_call_is_from_its_start_to_the_grace_after_its_failure() -> None:
    start, end = window_of(at(0, 50), at(20, 70))
    assert start == 0
    assert 20 + GRACE < end <= 20 + GRACE + 0.01  # rounded up, as logs give milliseconds


def test_the_window_of_a_killed_run_is_no_longer_than_a_call_can_be() -> None:
    start, end = window_of(at(0, 50), at(24 * HOUR, 50 + 24 * HOUR), longest=60)
    assert start == 0
    assert 60 + GRACE < end <= 60 + GRACE + 0.01


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
def test_a_clock_that_was_set_during_the_call_was_right_before_or_is_right_now(shift: float) -> None:
    start, end = window_of(at(0, 50), at(20 + shift, 70))
    for began in 0, shift:
        assert start <= began
        assert began + 20 + GRACE <= end


def test_a_suspended_host_leaves_the_work_before_or_after_the_pause() -> None:
    start, end = window_of(at(0, 50), at(HOUR, 60))  # the monotonic clock stands still meanwhile
    assert start <= 0
    assert end >= HOUR + GRACE


def test_after_a_reboot_the_wall_clock_alone_counts() -> None:
    start, end = window_of(at(0, 90_000, "other"), at(HOUR, 5))
    assert start <= 0
    assert end >= HOUR + GRACE


def test_a_start_in_the_future_may_be_right_or_as_long_ago() -> None:
    start, end = window_of(at(HOUR, 5, "other"), at(0, 90_000))
    assert start <= -HOUR
    assert end >= HOUR + GRACE


def test_a_start_in_the_future_that_nobody_knows_more_of_does_not_invert_the_window() -> None:
    began = Moment.of_unknown_boot(NOON + timedelta(hours=1))
    window = Window.of_call(began, at(0), "?", grace=GRACE)
    assert window.start <= NOON
    assert window.end >= began.wall


def test_joined_windows_hold_both_and_keep_the_first_reason() -> None:
    one, other = (Window(NOON + timedelta(hours=h), NOON + timedelta(hours=h + 1), str(h)) for h in (0, 5))
    assert one.joined(other) == Window(one.start, other.end, "0")
    assert other.joined(one) == Window(one.start, other.end, "5")


seconds = st.integers(0, 800_000).map(lambda eighths: eighths / 8)  # which neither clocks nor floats round
shifts = st.integers(-8_000_000, 8_000_000).map(lambda eighths: eighths / 8)
parts = st.sampled_from([0, 0.125, 0.5, 1])


@given(passed=seconds, shift=shifts, began_right=st.booleans(), grace=seconds, longest=seconds, part=parts)
def test_a_window_holds_the_work_whichever_clock_was_right(
    passed: float, shift: float, began_right: bool, grace: float, longest: float, part: float
) -> None:
    began = at(0 if began_right else shift, 50)
    now = at(passed + (shift if began_right else 0), 50 + passed)
    window = Window.of_call(began, now, "?", grace=grace, longest=longest)
    work = NOON + timedelta(seconds=part * (min(passed, longest) + grace))
    assert window.start <= work <= window.end


@given(passed=seconds, asleep=parts, grace=seconds, part=parts)
def test_a_window_holds_the_work_wherever_a_pause_of_the_host_was(
    passed: float, asleep: float, grace: float, part: float
) -> None:
    window = Window.of_call(at(0, 50), at(passed, 50 + passed * (1 - asleep)), "?", grace=grace)
    assert window.start <= NOON + timedelta(seconds=part * (passed + grace)) <= window.end


@given(began=shifts, now=shifts, grace=seconds, longest=seconds, part=parts)
def test_after_a_reboot_a_window_holds_what_either_clock_says(
    began: float, now: float, grace: float, longest: float, part: float
) -> None:
    window = Window.of_call(at(began, 7, "other"), at(now, 5), "?", grace=grace, longest=longest)
    assert window.start <= NOON + timedelta(seconds=began + part * grace) <= window.end
    passed = min(abs(now - began), longest)
    assert window.start <= NOON + timedelta(seconds=now - abs(now - began) + part * (passed + grace)) <= window.end


@given(began=shifts, now=shifts, monotonic=seconds)
def test_seconds_since_are_never_negative(began: float, now: float, monotonic: float) -> None:
    assert at(now, 5).seconds_since(at(began, monotonic)) >= 0
    assert at(now, 5).seconds_since(at(began, monotonic, "other")) >= 0


@given(to_read=seconds, to_end=seconds, first=shifts, second=shifts, right=st.sampled_from([0, 1, 2]), grace=seconds)
def test_a_window_holds_the_work_wherever_in_the_run_the_clock_was_set(
    to_read: float, to_end: float, first: float, second: float, right: int, grace: float
) -> None:
    """The clock is right at the start of the run, at the time of the call, or at the end of the run."""
    ahead = [0, first, first + second]
    started, read, ended = (
        at(passed + shift - ahead[right], 50 + passed)
        for passed, shift in zip((0, to_read, to_read + to_end), ahead, strict=True)
    )
    window = Window.of_call(read, read, "?", grace=grace + 1)  # a clock that is out by less than a second is not set
    wider = window.by_clock_at(started, read).by_clock_at(ended, read)
    assert wider.start - timedelta(seconds=1) <= NOON + timedelta(seconds=to_read)
    assert NOON + timedelta(seconds=to_read + grace) <= wider.end


@given(passed=seconds, out=st.floats(-0.9, 0.9))
def test_a_clock_that_is_put_right_gradually_widens_no_window(passed: float, out: float) -> None:
    read = at(0, 50)
    window = Window.of_call(read, read, "?", grace=1)
    assert window.by_clock_at(at(passed + out, 50 + passed), read) == window
