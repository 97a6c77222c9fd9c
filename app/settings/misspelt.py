"""Finds the setting that a misspelt name was meant to be.

A setting that is not set has its default, so a misspelt name would go unseen: with OUTPUT_DRI the rows of a run would
go to a stdout that nobody keeps. A name is taken for a misspelt setting when the two differ by no more than

- upper and lower case, and underscores, hyphens or dots that are missing, added or exchanged, and
- one slip: a letter that is missing, added or wrong, or two neighbours that are swapped; or, in a setting of ten
  characters or more, two slips in two different words.

Two slips within one word are two different words as a rule (MIN_RUNTIME, SEND_TIMEOUT, RECONNECT_TIMEOUT), as is
anything further away. So the variables that Kubernetes makes of a service named `proctor` or `auth`, those of CI
systems, shells and cloud clients are not taken for misspelt settings. The few names of other programs that are as near
as a slip are listed here.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from app.settings.declarations import EVERY_NAME, NAMES

_LONG = 10  # characters: a setting in which two slips are still the same name


def misspelt(name: str, settings: Iterable[str] = EVERY_NAME) -> str | None:
    """The setting that `name` is a misspelling of; None where it is spelt right, or is something else."""
    settings = tuple(settings)
    if name in settings or name.upper().startswith("OAUTH"):  # a word of its own, as in OAUTH_CLIENT_ID
        return None
    return next((setting for setting in settings if _resembles(name.upper(), setting.upper())), None)


def misspelt_in_environment(environ: Mapping[str, str]) -> list[str]:
    """A problem for each misspelt setting in the environment."""
    others = {"LOGLEVEL"}  # of many programs
    if "SESSIONNAME" in environ:
        others.add("CLIENTNAME")  # Windows: the computer in front of which the user of a remote desktop sits
    return [not_known(name, setting) for name in environ if name not in others and (setting := misspelt(name))]


def misspelt_in_secrets(directory: Path) -> list[str]:
    """A problem for each file in the secrets directory whose name is a misspelt setting in lower case."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:  # there is none, or its files can be read but not listed
        return []
    settings = [name.lower() for name in NAMES]
    return [
        not_known(str(directory / name), str(directory / setting))
        for name in names
        if (setting := misspelt(name, settings))
    ]


def not_known(name: str, setting: str) -> str:
    """The message about a name that resembles a setting."""
    return f"{name} is not a known setting; did you mean {setting}?"


def nearest(name: str) -> str | None:
    """The setting that is most like `name`, if any is like it at all: for a hint, not for a verdict."""
    import difflib  # for a doubtful `.env` alone

    return next(iter(difflib.get_close_matches(name.upper(), NAMES, n=1)), None)


def _resembles(name: str, setting: str) -> bool:
    words, meant = _words(name), _words(setting)
    if _slips("".join(words), "".join(meant)) <= 1:
        return True
    if len(setting) < _LONG or len(words) != len(meant):
        return False
    slips = [_slips(word, other) for word, other in zip(words, meant, strict=True)]
    return max(slips) <= 1 and sum(slips) <= 2


@cache
def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[_.\-]", name) if word)


def _slips(text: str, other: str) -> int:
    """0 where two texts are the same, 1 where they differ by one slip, 2 where they differ by more."""
    if text == other:
        return 0
    text, other = _without_common_start(text, other)
    text, other = _without_common_start(text[::-1], other[::-1])
    one_letter = len(text) <= 1 and len(other) <= 1
    swapped = len(text) == 2 and text == other[::-1]
    return 1 if one_letter or swapped else 2


def _without_common_start(text: str, other: str) -> tuple[str, str]:
    length = 0
    while text[length : length + 1] == other[length : length + 1] != "":
        length += 1
    return text[length:], other[length:]
