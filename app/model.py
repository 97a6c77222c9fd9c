"""The values that a run deals with: exams and batches, moments and periods, and the windows of lost responses."""

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

# A clock that differs by less was not set: clocks drift, and are put right gradually.
_CLOCK_SET = timedelta(seconds=1)


def timestamp(moment: datetime) -> str:
    """UTC in ISO 8601 with milliseconds, as in every log line and summary."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """The time in UTC that a text of `timestamp` stands for; raises ValueError, TypeError or OverflowError."""
    return datetime.fromisoformat(text).astimezone(UTC)


class Exam(NamedTuple):
    """One exam as the CSV shows it, each cell as text. The field names are Proctor's, and the CSV's."""

    assessmentKey: str  # noqa: N815
    assessmentId: str  # noqa: N815
    examId: str  # noqa: N815
    studentId: str  # noqa: N815
    updatedExamStatus: str  # noqa: N815


STATUSES = ("expired", "completed")
"""What Proctor reports as the status of an exam that it changed."""


class Batch(NamedTuple):
    """The exams that one call changed, whether Proctor has more, and what was unexpected about the response."""

    exams: list[Exam]
    more: bool
    anomalies: frozenset[str]


class Moment(NamedTuple):
    """A reading of both clocks: the wall clock can be set, the monotonic one restarts at each boot."""

    wall: datetime
    monotonic: float
    boot: str

    @classmethod
    def now(cls) -> Self:
        """The present."""
        return cls(datetime.now(UTC), time.monotonic(), _boot())

    @classmethod
    def of_unknown_boot(cls, wall: datetime) -> Self:
        """A time that was read from the wall clock alone."""
        return cls(wall, 0.0, "unknown")

    def seconds_since(self, earlier: "Moment") -> float:
        """How many seconds passed since an earlier moment.

        After a reboot only the wall clocks are left. If the earlier moment seems to be in the future, a clock was set:
        then it may just as well be that long ago.
        """
        if self.boot == earlier.boot:
            return max(self.monotonic - earlier.monotonic, 0)
        return abs((self.wall - earlier.wall).total_seconds())

    def clock_set_since(self, earlier: "Moment") -> timedelta:
        """By how much the wall clock was put forward since an earlier moment of this boot; less than zero: back."""
        return (self.wall - earlier.wall) - timedelta(seconds=self.monotonic - earlier.monotonic)


class Period(NamedTuple):
    """A stretch of time, in UTC. In a sentence it reads `from … to …`."""

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, start: str, end: str) -> Self:
        """The period between two texts of `timestamp`; raises as `parse_timestamp` does."""
        return cls(parse_timestamp(start), parse_timestamp(end))

    def __str__(self) -> str:
        return f"from {timestamp(self.start)} to {timestamp(self.end)}"

    def holds(self, other: "Period") -> bool:
        """Whether the other one lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def bounds(self) -> dict[str, str]:
        """Its bounds as log events and summaries have them."""
        return {"start": timestamp(self.start), "end": timestamp(self.end)}


class Window(NamedTuple):
    """The time of a call whose response was lost: exams that Proctor changed in it may be in no CSV."""

    start: datetime
    end: datetime
    reason: str

    @property
    def period(self) -> Period:
        """The time alone."""
        return Period(self.start, self.end)

    @classmethod
    def of_call(
        cls, began: Moment, now: Moment, reason: str, *, grace: float, longest: float = float("inf")
    ) -> "Window":
        """The window of a call that began at `began` and had failed by `now`, at most `longest` seconds after it began.

        Proctor may go on with the call for `grace` seconds after that. Whichever of the two moments has the right wall
        clock, the window holds the time of the work: too wide does no harm, too narrow loses exams.
        """
        passed = now.seconds_since(began)
        starts = (began.wall, now.wall - timedelta(seconds=passed))
        length = timedelta(seconds=min(passed, longest) + grace)
        rounding = timedelta(milliseconds=1)  # logs and summaries give milliseconds
        return cls(min(starts), max(starts) + length + rounding, reason)

    def by_clock_at(self, other: Moment, read_at: Moment) -> "Window":
        """The window, so wide that it holds what it would be by the clock as it was set at another moment, too.

        `read_at` is when the clock was read for this window.
        """
        shift = other.clock_set_since(read_at)
        if abs(shift) < _CLOCK_SET:
            return self
        return self.joined(Window(self.start + shift, self.end + shift, self.reason))

    def joined(self, other: "Window") -> "Window":
        """One window that holds both, with the reason of this one."""
        return Window(min(self.start, other.start), max(self.end, other.end), self.reason)


@cache
def _boot() -> str:
    """What distinguishes this boot of the machine from others; without such an identifier, this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return f"process started at {time.time_ns()}"
