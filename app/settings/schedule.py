"""Checks a SCHEDULE as ofelia 0.3.22 reads it, before ofelia does.

ofelia uses robfig/cron 1.2.0 (parser.go, `Parse`): six fields, seconds first, or a descriptor such as `@daily`. A line
of five fields is accepted there, too, but the field that it lacks is the last one: crontab's `0 2 * * *` would run at
second 0 of minute 2 of every hour.
"""

import re
from dataclasses import dataclass

_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_DURATION = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:h|ms|m|s|us|µs|μs|ns)"
_LONGEST = 290 * 366 * 86_400.0  # seconds: what Go can hold
_LONGEST_MONTHS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


@dataclass(frozen=True)
class _Field:
    """One of the six fields: its name, its least and greatest value, and the names of its values from the least on."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> set[int]:
        """The values that a field stands for: a list of `*`, `?`, N, N-M, each with `/step`.

        Raises:
            ValueError: says what is wrong.
        """
        return set().union(*(self._parse_item(item) for item in text.split(",")))

    def _parse_item(self, item: str) -> range:
        span, slash, step = item.partition("/")
        if slash and not re.fullmatch(r"0*[1-9][0-9]*", step, re.ASCII):
            raise ValueError(f"{item!r} in the field for the {self.name} has a step that is not a whole number above 0")
        if span in ("*", "?"):
            first, last = self.least, self.most
        else:
            start, hyphen, end = span.partition("-")
            first = self._parse_value(start, item)
            last = self._parse_value(end, item) if hyphen else self.most if slash else first
        if first > last:
            raise ValueError(f"{item!r} in the field for the {self.name} ends before it begins")
        return range(first, last + 1, int(step) if slash else 1)

    def _parse_value(self, text: str, item: str) -> int:
        if text.lower() in self.names:
            return self.least + self.names.index(text.lower())
        if re.fullmatch("[0-9]{1,9}", text) and self.least <= int(text) <= self.most:
            return int(text)
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        raise ValueError(f"{item!r} in the field for the {self.name} is not {self.least} to {self.most}{names}")


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, tuple("jan feb mar apr may jun jul aug sep oct nov dec".split())),
    _Field("day of the week", 0, 6, tuple("sun mon tue wed thu fri sat".split())),
)


def schedule_problem(text: str) -> str | None:
    """What is wrong with a SCHEDULE, in a sentence; None where ofelia runs the job as it is written."""
    try:
        if text.startswith("@"):
            _check_descriptor(text)
        else:
            _check_fields(text.split())
    except ValueError as error:
        return f"SCHEDULE={text!r} {error}."
    return None


def _check_descriptor(text: str) -> None:
    every, space, duration = text.partition(" ")
    if every == "@every" and space:
        if not re.fullmatch(rf"[+-]?(?:{_DURATION})+|[+-]?0", duration):
            raise ValueError("has no duration after @every that can be read; write it as in @every 1h30m")
        parts = re.findall(r"([0-9.]+)([^0-9.]+)", duration)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if duration.startswith("-") or not 1 <= seconds <= _LONGEST:
            raise ValueError("has a duration after @every that is shorter than a second, or far too long")
    elif text not in _DESCRIPTORS:
        raise ValueError(f"is not known to ofelia, which knows {', '.join(_DESCRIPTORS)} and @every 1h30m")


def _check_fields(texts: list[str]) -> None:
    if len(texts) == 5:
        six = " ".join(["0", *texts])
        advice = "put one for the seconds first" if schedule_problem(six) else f"write {six}"
        raise ValueError(
            "has five fields, as in crontab, but ofelia takes the first one for seconds and would run at other times;"
            f" {advice}"
        )
    if len(texts) != len(_FIELDS):
        raise ValueError(f"does not have six fields, seconds first, such as 0 0 2 * * *, but {len(texts)}")
    *_, days, months, _ = (field.parse(text) for field, text in zip(_FIELDS, texts, strict=True))
    any_weekday = any(item[0] in "*?" for item in texts[5].split(","))
    if any_weekday and min(days) > max(_LONGEST_MONTHS.get(month, 31) for month in months):
        raise ValueError("has a day that none of its months has, so the job would never run")
