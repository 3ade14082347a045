"""Event time of a record, from its own time or from a field.

>>> field_ms("2024-02-29T12:00:00.5+01:00", "ms")
1709204400500
>>> field_ms(1_700_000_000, "s")
1700000000000
"""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sage_flink.common.errors import Rejected

Unit = Literal["s", "ms", "us", "ns"]
_MS_PER_UNIT: dict[str, tuple[int, int]] = {
    "s": (1000, 1),
    "ms": (1, 1),
    "us": (1, 1000),
    "ns": (1, 1_000_000),
}
#: The first millisecond of the year 1.
FIRST_MS = -62_135_596_800_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})"
)
_NO_TIME = "is neither a number nor a time in RFC 3339"


def field_ms(value: Any, unit: Unit) -> int:
    """Milliseconds since the epoch: a number in ``unit``, or text in RFC 3339 with its offset.

    Raises:
        Rejected: it is no time; the message says what it is.
    """
    times, parts = _MS_PER_UNIT[unit]
    match value:
        case bool():
            raise Rejected(_NO_TIME)
        case int() if -(2**63) <= value < 2**63:
            ms = value * times // parts
        case float() if not math.isfinite(value):
            raise Rejected("is not a finite number")
        case float():
            ms = math.floor(value * times if parts == 1 else value / parts)
        case str() if _RFC_3339.fullmatch(value):
            ms = _text_ms(value)
        case _:
            raise Rejected(_NO_TIME)
    if ms < FIRST_MS:
        raise Rejected("is before the year 1")
    return ms


def _text_ms(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
        return (time - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as error:
        raise Rejected(_NO_TIME) from error


def own_ms(timestamp_ms: int) -> int:
    """The record's own time; 0 means that it is missing.

    Raises:
        Rejected: it has none.
    """
    if timestamp_ms == 0:
        raise Rejected("it has no event time: timestamp_ms is 0")
    if timestamp_ms < FIRST_MS:
        raise Rejected("its event time is before the year 1")
    return timestamp_ms
