"""Values that a record can carry, out of those that typed formats have.

===========================  ============================================================
decimal                      text with all its digits: ``"12.30"``; never an exponent
date                         text in ISO 8601: ``"2024-05-01"``
time of day                  text in ISO 8601: ``"12:00:00.500000"``, without a fraction of 0
point in time, UTC           text in ISO 8601: ``"2024-05-01T12:00:00Z"``
local date and time          the same without ``Z``
UUID, enum                   text
bytes, fixed                 bytes
NaN and infinities           as they are; only JSON cannot hold them
===========================  ============================================================

Text, and not numbers: the digits of a decimal and the zone of a time stay, a store can compare
dates as text, and JSON holds them all.
"""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from sage_flink.common.errors import Rejected

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DATE = date(1970, 1, 1)


def record_value(value: Any) -> Any:
    """The value as a record carries it.

    Raises:
        Rejected: it has no such form.
    """
    kind = type(value)
    if kind in _AS_IS:
        return value
    if kind is dict:
        return {str(name): record_value(each) for name, each in value.items()}
    if kind is list or kind is tuple:
        return [record_value(each) for each in value]
    if convert := _TO_TEXT.get(kind):
        return convert(value)
    raise Rejected(f"a record cannot carry a value of {kind.__name__}")


def decimal_text(value: Decimal) -> str:
    """All digits: ``Decimal("1E+2")`` is ``"100"``."""
    return format(value, "f")


def moment(at: datetime) -> str:
    """A point in time in UTC with ``Z``, or a local one without."""
    if at.tzinfo is None:
        return at.isoformat()
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


def time_of_day(at: time) -> str:
    """A time of day."""
    return at.isoformat()


_AS_IS = frozenset({str, int, float, bool, bytes, type(None)})
_TO_TEXT: dict[type, Any] = {
    Decimal: decimal_text,
    date: date.isoformat,
    time: time_of_day,
    datetime: moment,
    UUID: str,
}
