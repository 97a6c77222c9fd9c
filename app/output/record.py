"""A record of the calls of the run under way, kept in the lock file: what would be unknown after a kill.

It says since when exams may be missing from the CSV, and since when Proctor may be working on a call.
"""

import json
from typing import Any, NamedTuple, Self

from app.model import Moment, parse_timestamp, timestamp

_LONGEST = 1000 * 365 * 86_400.0  # seconds


class Record(NamedTuple):
    """What the run that writes `csv` knows of its calls."""

    csv: str
    """The name of its CSV."""
    since: Moment
    """Every exam that was reported to it before this moment is in the CSV."""
    unreported: bool
    """Whether a call that began then, or after that, may have changed exams that are not in the CSV."""
    last_call: Moment | None
    """When the call began that Proctor may be working on; after a lost response, when it was lost.

    While the run waits for the last call of an earlier one: when it began to. None: no call is at work.
    """
    longest_call: float
    """For how many seconds Proctor may be working on a call from `last_call` on."""
    last_lost: Moment | None = None
    """When the last call began whose response was lost. None: none was."""

    def to_line(self) -> bytes:
        """The record as one line of JSON."""
        content = {
            name: _moment_out(value) if isinstance(value, Moment) else value for name, value in self._asdict().items()
        }
        return (json.dumps(content) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """The record that a line holds; None where it holds none."""
        try:
            content = json.loads(line)
            last_call, last_lost = content["last_call"], content["last_lost"]
            return cls(
                str(content["csv"]),
                _moment_in(content["since"]),
                bool(content["unreported"]),
                None if last_call is None else _moment_in(last_call),
                _plausible(float(content["longest_call"])),
                None if last_lost is None else _moment_in(last_lost),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None


def _moment_out(moment: Moment) -> list[Any]:
    return [timestamp(moment.wall), moment.monotonic, moment.boot]


def _moment_in(content: list[Any]) -> Moment:
    wall, monotonic, boot = content
    moment = Moment(parse_timestamp(wall), float(monotonic), str(boot))
    _plausible(abs(moment.wall.timestamp()))
    _plausible(abs(moment.monotonic))
    return moment


def _plausible(seconds: float) -> float:
    """The same number; ValueError where no run can have written it, and no window could be given for it."""
    if not 0 <= seconds <= _LONGEST:
        raise ValueError
    return seconds
