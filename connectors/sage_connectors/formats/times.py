"""Times in messages: milliseconds since the epoch out of numbers and of ISO 8601.

>>> timestamp_ms("2024-05-01T12:00:00.5Z", "auto"), timestamp_ms(1714564800, "epoch_s")
(1714564800500, 1714564800000)
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from sage_flink.common.errors import Rejected
from sage_flink.common.records import is_timestamp_ms
from sage_flink.common.value_encoding import short_repr

TimeFormat = Literal["auto", "epoch_s", "epoch_ms", "epoch_us", "iso_8601"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A unit of each format in milliseconds.
_UNITS_MS = {
    "auto": Decimal(1),
    "epoch_s": Decimal(1000),
    "epoch_ms": Decimal(1),
    "epoch_us": Decimal("0.001"),
}
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?")


def timestamp_ms(value: Any, form: TimeFormat) -> int:
    """Milliseconds since the epoch, rounded down.

    ``auto`` takes a number for milliseconds and a text for ISO 8601. The ``epoch`` forms take
    numbers, also as text, and texts in ISO 8601 too, because Avro's and Protobuf's timestamps are
    such. A time without a zone is UTC.

    Raises:
        Rejected: it is no time of this form, or outside of 64 bits.
    """
    number = _number(value, form)
    if number is not None:
        ms = int((number * _UNITS_MS[form]).to_integral_value("ROUND_FLOOR"))
    elif isinstance(value, str):
        ms = _iso_ms(value, form)
    else:
        raise Rejected(f"the event time must be {form}, got {short_repr(value)}")
    if not is_timestamp_ms(ms):
        raise Rejected(f"the event time is outside of 64 bits of milliseconds: {short_repr(value)}")
    return ms


def _number(value: Any, form: TimeFormat) -> Decimal | None:
    if form == "iso_8601" or isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            number = Decimal(value)
        except InvalidOperation:
            return None
        return number if number.is_finite() and abs(number.adjusted()) < 40 else None
    as_text = form != "auto" and isinstance(value, str) and _NUMBER.fullmatch(value)
    return Decimal(value) if as_text else None


def _iso_ms(text: str, form: TimeFormat) -> int:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise Rejected(f"the event time must be {form}, got {text!r:.100}") from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - EPOCH) // timedelta(milliseconds=1)
