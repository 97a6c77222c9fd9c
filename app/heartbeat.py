"""Reports start and end of a run to a monitor, by the protocol of healthchecks.io. If that fails, the run goes on."""

import logging
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from app.logs import log_event
from app.proctor.transport import Transport
from app.signals import Stop

_TIMEOUT = 10  # seconds


@dataclass(frozen=True, repr=False)  # no repr: the URL is a secret, and never logged
class Monitor:
    """The monitor at HEARTBEAT_URL, if there is one, and how its certificate is verified, as in requests."""

    url: str | None
    verify: bool | str

    def ping(self, what: str, stop: Stop, summary: dict[str, Any] | None = None, *, ended_by: int) -> None:
        """POST to HEARTBEAT_URL/`what`: `start`, or the exit code with the summary.

        Raises:
            Interrupted: the signal `ended_by` was received.
        """
        if not self.url:
            return
        base, mark, query = self.url.partition("?")
        target = f"{base.rstrip('/')}/{what}{mark}{query}"
        try:
            with closing(Transport(stop, _TIMEOUT, _TIMEOUT, self.verify)) as transport:
                response = transport.send(transport.prepare("POST", target, json=summary), ended_by=ended_by)
            problem = "" if 200 <= response.status < 300 else f"it responded {response.status}"
        except Exception as error:
            problem = type(error).__name__  # its text may hold the URL
        if problem:
            log_event(
                logging.WARNING,
                "heartbeat",
                f"The monitor at HEARTBEAT_URL could not be pinged with {what!r}: {problem}. The run is not affected.",
            )
