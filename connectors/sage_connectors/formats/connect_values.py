"""Values of Kafka Connect's JSON with a schema: decimals, dates, times and bytes by their schema.

Without the schema JSON does not say that ``"MDk="`` is the decimal 123.45, so only messages with
``schemas.enable=true`` are converted. The results are those of Avro's logical types, see
:mod:`~sage_connectors.formats.carried`.

Source: Debezium documentation, "Data type mappings"; Kafka, org.apache.kafka.connect.data.
"""

import base64
import binascii
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sage_connectors.formats.carried import EPOCH, EPOCH_DATE, decimal_text, moment, time_of_day
from sage_flink.common.errors import Rejected
from sage_flink.common.value_encoding import short_repr

_UNITS = {"milliseconds": 1_000, "microseconds": 1}


def convert(value: Any, schema: Any) -> Any:
    """The value with what its schema names converted.

    Raises:
        Rejected: the value is not of its schema.
    """
    if value is None or not isinstance(schema, dict):
        return value
    kind, name = schema.get("type"), schema.get("name")
    try:
        if by_name := _BY_NAME.get(name if isinstance(name, str) else ""):
            return by_name(value, schema)
        if kind == "struct" and isinstance(value, dict):
            below = {f.get("field"): f for f in schema.get("fields") or ()}
            return {name: convert(each, below.get(name)) for name, each in value.items()}
        if kind == "array" and isinstance(value, list):
            return [convert(each, schema.get("items")) for each in value]
        if kind == "map" and isinstance(value, dict):
            return {name: convert(each, schema.get("values")) for name, each in value.items()}
        if kind == "bytes":
            return _bytes(value)
    except (TypeError, ValueError, OverflowError, ArithmeticError, AttributeError) as error:
        raise Rejected(f"{short_repr(value)} is no {name or kind}: {error}") from error
    return value


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"not base64: {error}") from error


def _decimal(value: Any, schema: Any) -> str:
    scale = int((schema.get("parameters") or {}).get("scale", 0))
    return _decimal_text(value, scale)


def _variable_decimal(value: Any, schema: Any) -> str:
    return _decimal_text(value["value"], int(value["scale"]))


def _decimal_text(value: Any, scale: int) -> str:
    if abs(scale) > 1_000:
        raise ValueError(f"scale {scale}")
    return decimal_text(Decimal(int.from_bytes(_bytes(value), "big", signed=True)).scaleb(-scale))


def _date(value: Any, schema: Any) -> str:
    return (EPOCH_DATE + timedelta(days=value)).isoformat()


def _moment(unit: str, *, zone: bool) -> Callable[[Any, Any], str]:
    def convert(value: Any, schema: Any) -> str:
        at = EPOCH + timedelta(microseconds=_micros(value, unit))
        return moment(at if zone else at.replace(tzinfo=None))

    return convert


def _time(unit: str) -> Callable[[Any, Any], str]:
    def convert(value: Any, schema: Any) -> str:
        micros = _micros(value, unit)
        if not 0 <= micros < 86_400_000_000:
            raise ValueError("not within a day")
        return time_of_day((EPOCH + timedelta(microseconds=micros)).time())

    return convert


def _micros(value: int, unit: str) -> int:
    if unit == "nanoseconds":
        return value // 1_000
    return value * _UNITS[unit]


_BY_NAME: dict[str, Callable[[Any, Any], Any]] = {
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "org.apache.kafka.connect.data.Date": _date,
    "org.apache.kafka.connect.data.Time": _time("milliseconds"),
    "org.apache.kafka.connect.data.Timestamp": _moment("milliseconds", zone=True),
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
    "io.debezium.time.Date": _date,
    "io.debezium.time.Time": _time("milliseconds"),
    "io.debezium.time.MicroTime": _time("microseconds"),
    "io.debezium.time.NanoTime": _time("nanoseconds"),
    "io.debezium.time.Timestamp": _moment("milliseconds", zone=False),
    "io.debezium.time.MicroTimestamp": _moment("microseconds", zone=False),
    "io.debezium.time.NanoTimestamp": _moment("nanoseconds", zone=False),
}
