"""The log on standard error: lines for people, or with ``--log json`` for machines.

A request that fails with 5xx is a line with its id, ten a second at most, for an engine that is
down fails thousands; with ``--log-requests`` every request is one.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import orjson

Form = Literal["text", "json"]
FAILURES_PER_S = 10

log = logging.getLogger("sage.gateway.requests")


class JsonLines(logging.Formatter):
    """One JSON object for each line, with the subject of the line in fields."""

    def format(self, record: logging.LogRecord) -> str:
        """``at`` is UTC."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(form: Form) -> None:
    """Log to standard error in this form."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class RequestLog:
    """The lines about requests. ``every``: not only those that failed."""

    def __init__(self, *, every: bool = False) -> None:
        self._every = every
        self._second = 0
        self._logged = 0

    def wants(self, status: int) -> bool:
        """Whether a request that ended so is to be a line."""
        if status < 500:
            return self._every
        second = int(time.monotonic())
        self._logged = 1 if second != self._second else self._logged + 1
        self._second = second
        return self._every or self._logged <= FAILURES_PER_S

    def note(self, status: int, seconds: float, fields: Mapping[str, str]) -> None:
        """A request has ended; ``fields`` say which."""
        named = {name: value for name, value in fields.items() if value}
        words = " ".join(f"{name}={value}" for name, value in named.items())
        took = round(seconds, 4)
        more = {"fields": {**named, "status": status, "seconds": took}}
        level = logging.INFO if status < 500 else logging.WARNING
        log.log(level, "%d after %g s: %s", status, took, words, extra=more)
