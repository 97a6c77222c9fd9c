"""Text from a file or stdin, in UTF-8, or in UTF-16 as PowerShell redirects it."""

import codecs
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from app.exceptions import OutputFailed, UnexpectedResponse

STDIN = Path("-")


def source_name(source: Path) -> str:
    """What a source is called in messages."""
    return "stdin" if source == STDIN else str(source)


def lines(source: Path, errors: str = "strict") -> Iterator[str]:
    """The lines of a file, or of stdin, each with the line end that it has.

    Raises:
        OutputFailed: it cannot be read.
        UnexpectedResponse: it is not text.
    """
    try:
        with _open(source) as file:
            start = file.peek(2)[:2]
            encoding = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
            yield from io.TextIOWrapper(file, encoding, errors, newline="")
    except OSError as error:
        raise OutputFailed(f"{source_name(source)} cannot be read: {error.strerror}.") from None
    except UnicodeError:
        raise UnexpectedResponse(
            f"{source_name(source)} is not UTF-8 text. For mysql, add --default-character-set=utf8mb4."
        ) from None


def _open(source: Path) -> io.BufferedReader:
    if source != STDIN:
        return source.open("rb")
    if sys.stdin is None:
        raise OutputFailed("stdin is closed: pipe the text into this command.")
    return open(sys.stdin.fileno(), "rb", closefd=False)
