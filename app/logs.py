"""What happens, on stderr: one line per event, for people or as JSON. A stderr that fails never stops a run."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from app.model import timestamp
from app.streams import printable, wait_writable, write_chunk

log = logging.getLogger("app")

_STDERR = 2
_PATIENCE = 5.0


def log_event(level: int, name: str, message: str, *arguments: object, **fields: object) -> None:
    """Log `message % arguments` for people; in JSON, `name` and `fields` stand beside it for machines."""
    log.log(level, message, *arguments, extra={"event": name, "fields": fields})


def configure(level: str, form: str) -> None:
    """Send all events from `level` on to stderr, as `text` or `json`."""
    handler = _StderrHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    log.handlers = [handler]
    log.setLevel(level)
    log.propagate = False


def _time_of(record: logging.LogRecord) -> str:
    return timestamp(datetime.fromtimestamp(record.created, UTC))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        lines = [
            printable(record.getMessage()),
            *(self.formatException(record.exc_info).splitlines() if record.exc_info else ()),
        ]
        return "\n".join(f"{_time_of(record)} {record.levelname:<7} {line}" for line in lines)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class _StderrHandler(logging.Handler):
    """Writes complete lines. A reader that takes none for five seconds loses lines instead of holding up the run."""

    def __init__(self) -> None:
        super().__init__()
        self._stalled = False
        self._busy = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._busy:  # a signal handler's line must not land within another one
            return
        line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        self._busy = True
        try:
            while line:
                self._stalled = not wait_writable(_STDERR, 0 if self._stalled else _PATIENCE)
                if self._stalled:
                    return
                line = line[write_chunk(_STDERR, line) :]
        except OSError:
            pass
        finally:
            self._busy = False
