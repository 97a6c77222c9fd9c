"""A complete HTTP response, and what of it may be shown: nothing of any length, and no secret that was sent."""

import html
import http.client
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote

_LONGEST_QUOTE = 200  # characters
_PART = 6  # letters and digits of a secret in a row that count as a part of it

_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class Response(NamedTuple):
    """A complete HTTP response: `seconds` since its request went out; `secrets` are what that held."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    secrets: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = self.header("Content-Type").partition(";")[0] or "no content type"
        description = f"{self.status} {http.client.responses.get(self.status, '')}".strip()
        title = self.title
        titled = f', titled "{title}"' if title else ""
        return f"{description} ({self.quote(kind) or 'unknown content type'}, {len(self.body)} bytes{titled})"

    def header(self, name: str) -> str:
        """A header, empty where there is none."""
        return str(self.headers.get(name, ""))

    @property
    def title(self) -> str:
        """The title of an HTML page, as gateways send it for errors; empty without one."""
        title = _TITLE.search(self.body[:10_000])
        return self.quote(" ".join(html.unescape(title[1].decode("utf-8", "replace")).split())) if title else ""

    @property
    def retry_after(self) -> float:
        """The seconds that a Retry-After header asks for, in either of its forms; 0 without one."""
        value = self.header("Retry-After")
        try:
            if value.isdecimal():
                return float(value)
            return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0)
        except (ValueError, TypeError, OverflowError):
            return 0

    def quote(self, text: str) -> str:
        """A text of the server's, cut at 200 characters; empty where it may repeat a secret or a part of one."""
        text = text[:_LONGEST_QUOTE]
        return "" if any(_repeats(secret, text) for secret in self.secrets) else text


def _repeats(secret: str, text: str) -> bool:
    """Whether a text holds a secret or some of its letters in a row, in whichever case and however escaped."""
    if secret in text and len(secret) > 1:
        return True
    hidden = _letters(secret)
    if len(hidden) < 4:  # such a short one is in every text; as a word of its own it may be the secret
        return bool(hidden) and hidden in re.split(r"[\W_]+", unquote(html.unescape(text)).casefold())
    length, shown = min(_PART, len(hidden)), _letters(text)
    return any(hidden[at : at + length] in shown for at in range(len(hidden) - length + 1))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, unquote(html.unescape(text)).casefold()))
