"""Time zones of the database: what a clock there showed while a window lasted."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

MARGIN = timedelta(minutes=1)
"""How much wider a query is than a window, at both ends: clocks differ, and MariaDB cuts times to whole seconds."""

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?([0-5]\d)?")
_NAME = re.compile(r"[A-Za-z0-9_+/-]+")
_EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


class Zone(NamedTuple):
    """A time zone, and the text that names it."""

    name: str
    rules: tzinfo


def parse_zone(text: str) -> Zone:
    """A zone by its name, such as `America/Los_Angeles`, or by its offset, such as `-08:00`, `UTC-08:00`, `UTC`.

    Raises:
        ValueError: there is none; says what to do.
    """
    if text in ("UTC", "GMT", "Z"):
        return Zone("UTC", UTC)
    if offset := _OFFSET.fullmatch(text):
        distance = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        if distance < timedelta(hours=24):
            return Zone(text, timezone(-distance if offset[1] == "-" else distance))
    try:
        if _NAME.fullmatch(text):
            return Zone(text, ZoneInfo(text))
    except (LookupError, ValueError, OSError):
        pass
    if not available_timezones():
        raise ValueError(
            f"no time zone data is installed here, so {text!r} is not known: pip install tzdata, or give an offset such"
            " as --database-zone=-08:00"
        )
    raise ValueError(f"{text!r} is neither a time zone such as America/Los_Angeles nor an offset such as -08:00")


def readings(start: datetime, end: datetime, zone: Zone) -> tuple[datetime, datetime]:
    """The earliest and the latest that a clock in the zone may have shown from `start` to `end`, margin included.

    In whole seconds, without a zone. Where the clock was put forward or back in that time, every reading is between the
    two all the same: both offsets count.
    """
    first, last = max(start, _EARLIEST) - MARGIN, min(end, _LATEST) + MARGIN
    offsets = {_offset(last, zone)}
    moment = first
    while moment < last:
        offsets.add(_offset(moment, zone))
        moment += _HOUR
    earliest = (first + min(offsets)).replace(tzinfo=None, microsecond=0)
    latest = (last + max(offsets) + timedelta(seconds=1)).replace(tzinfo=None, microsecond=0)
    return earliest, latest


def _offset(moment: datetime, zone: Zone) -> timedelta:
    return moment.astimezone(zone.rules).utcoffset() or timedelta()
