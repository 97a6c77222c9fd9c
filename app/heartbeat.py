"""Tells a monitor that a run began and how it ended (the protocol of healthchecks.io). Its failure changes nothing."""

import logging
from contextlib import closing
from typing import Any

from app.logs import event
from app.signals import Stop
from app.proctor.transport import Transport

_SECONDS = 10


def beat(
    heartbeat_url: str | None,
    what: str,
    stop: Stop,
    summary: dict[str, Any] | None = None,
    verify: bool | str = True,
) -> None:
    """POST to HEARTBEAT_URL/`what`: `start`, or the exit code with the summary. The URL is a secret: never logged."""
    if not heartbeat_url:
        return
    base, mark, query = heartbeat_url.partition("?")
    target = f"{base.rstrip('/')}/{what}{mark}{query}"
    try:
        with closing(Transport(stop, _SECONDS, _SECONDS, verify)) as transport:
            answer = transport.request("POST", target, json=summary)
        problem = "" if 200 <= answer.status < 300 else f"it answered {answer.status}"
    except Exception as error:
        problem = type(error).__name__  # its text may hold the URL
    if problem:
        event(
            logging.WARNING,
            "heartbeat",
            f"The monitor at HEARTBEAT_URL was not told {what!r}: {problem}. That changes nothing else.",
        )
