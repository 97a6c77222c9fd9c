"""What turns the text of a setting into its value.

Each parser takes a text and returns the value, or raises a ValueError whose message continues a sentence that begins
with the setting's name: "is not an http or https URL". Only the parsers of settings that are not secret quote the text.
"""

import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

Number = TypeVar("Number", int, float)


def text(value: str) -> str:
    """Any text on one line."""
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("contains a control character, such as a line break")
    return value


def client_name(value: str) -> str:
    """A client name that reaches Proctor as it is written.

    Proctor was observed to reject a request whose path contains an encoded `/`, and to cut the name at a `;`.
    """
    if value in (".", ".."):
        raise ValueError(f"is {value!r}, which a URL cannot carry")
    if re.search("[\"']|\\s#", value):
        raise ValueError(f"is {value}: write it without quotes, and without a comment after it")
    for character, consequence in (("/", "rejects it"), (";", "ignores what follows it")):
        if character in value:
            raise ValueError(f"is {value!r}; a client name cannot contain {character!r}: Proctor {consequence}")
    return text(value)


def url(value: str) -> str:
    """An http or https URL without user name, password and fragment. A bare host means https."""
    try:
        parts = urlsplit(text(value) if "://" in value else f"https://{text(value)}")
        usable = parts.scheme in ("http", "https") and (parts.port is None or parts.port > 0)
        usable = usable and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\"'<>\\^`{|}]", value):
        raise ValueError("is not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("contains a user name or password; credentials belong in the AUTH_ settings")
    if parts.fragment:
        raise ValueError("contains a '#'; the URL of a service has none")
    return urlunsplit(parts)


def proctor_url(value: str) -> str:
    """The URL up to and including the context path, which is /proctor where none is given."""
    parts = urlsplit(url(value))
    if parts.query:
        raise ValueError("contains a '?'; give the address of Proctor alone, such as https://proctor.example.org")
    path = parts.path.rstrip("/") or "/proctor"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def choice(*choices: str) -> Callable[[str], str]:
    """One of some words, in upper or lower case."""

    def parse(value: str) -> str:
        for word in choices:
            if value.lower() == word.lower():
                return word
        raise ValueError(f"is {value!r}; it must be {' or '.join([', '.join(choices[:-1]), choices[-1]])}")

    return parse


def truth(value: str) -> bool:
    """Yes or no, in one of the usual words."""
    return choice("true", "false", "yes", "no", "on", "off", "1", "0")(value) in ("true", "yes", "on", "1")


def number(kind: Callable[[str], Number], least: float, most: float) -> Callable[[str], Number]:
    """A number, whole if `kind` is int, within limits."""

    def parse(value: str) -> Number:
        try:
            parsed = kind(value)
        except ValueError:
            parsed = None
        if parsed is None or not least <= parsed <= most:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"is {value!r}; it must be {what} from {least:g} to {most:g}")
        return parsed

    return parse


def directory(value: str) -> Path:
    """A directory, which need not exist yet: a run opens it before anything is sent."""
    return Path(text(value))


def ca_file(value: str) -> str:
    """The path of a file of CA certificates in PEM form."""
    if not os.path.isfile(value):
        raise ValueError(f"is {value!r}, which is not a file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except OSError as error:  # ssl.SSLError is an OSError
        raise ValueError(f"is {value!r}, which cannot be read as CA certificates (PEM): {error.strerror}") from None
    return value
