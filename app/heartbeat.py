"""Tells a monitor that a run began and how it ended (the protocol of healthchecks.io). Its failure changes nothing."""

import logging
from typing import Any

import requests

from app.logs import event
from app.transport import NoAuth

_SECONDS = 10


def beat(heartbeat_url: str | None, what: str, summary: dict[str, Any] | None = None) -> None:
    """POST to HEARTBEAT_URL/`what`: `start`, or the exit code with the summary. The URL is a secret: never logged."""
    if not heartbeat_url:
        return
    base, mark, query = heartbeat_url.partition("?")
    try:
        answer = requests.post(
            f"{base.rstrip('/')}/{what}{mark}{query}",
            json=summary,
            auth=NoAuth(),
            timeout=_SECONDS,
            allow_redirects=False,
        )
        problem = "" if 200 <= answer.status_code < 300 else f"it answered {answer.status_code}"
    except Exception as error:
        problem = type(error).__name__
    if problem:
        event(logging.WARNING, "heartbeat", f"The monitor at HEARTBEAT_URL was not told {what!r}: {problem}.")
