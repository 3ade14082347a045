"""What a format has written it reads as the same value; times are read in each unit."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_vectors import AVRO_SCHEMA, PROTO_SCHEMA

from sage_connectors import Avro, Json, Protobuf, Raw, Text
from sage_connectors.formats.times import timestamp_ms
from sage_flink.common import Record, Rejected

TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=20,
)


@given(value=TREES)
def test_json_written_is_read_as_the_same_value(value: Any) -> None:
    format_ = Json()

    raw = format_.encoder("t")(Record("a", value))

    assert json.loads(raw) == value
    (record,) = format_.decoder()(Record("t/0/0", raw))
    assert record.value == value


@given(
    id_=st.integers(-(2**63), 2**63 - 1),
    cents=st.integers(-(10**8), 10**8),
    note=st.none() | st.text(),
)
def test_avro_written_is_read_as_the_same_value(id_: int, cents: int, note: str | None) -> None:
    format_ = Avro(AVRO_SCHEMA)
    price = f"{'-' * (cents < 0)}{abs(cents) // 100}.{abs(cents) % 100:02}"
    value = {"id": id_, "price": price, "at": "2024-05-01T12:00:00.500000Z", "note": note}

    raw = format_.encoder("t")(Record("a", value))

    (record,) = format_.decoder()(Record("t/0/0", raw))
    assert record.value == value


PROTO = Protobuf(PROTO_SCHEMA)
DECODE_PROTO, ENCODE_PROTO = PROTO.decoder(), PROTO.encoder("t")


@given(
    id_=st.integers(-(2**63), 2**63 - 1),
    name=st.text(),
    height=st.none() | st.floats(allow_nan=False),
    kinds=st.lists(st.sampled_from(["NONE", "OAK", 7]), max_size=3),
    counts=st.dictionaries(st.text(), st.integers(0, 2**64 - 1), max_size=3),
    raw=st.binary(),
    inner=st.none() | st.fixed_dictionaries({"ok": st.booleans()}),
)
def test_protobuf_written_is_read_as_the_same_value(**value: Any) -> None:
    value = {"id": value.pop("id_"), **value, "at": "2024-05-01T12:00:00.500000Z"}

    raw = ENCODE_PROTO(Record("a", value))

    (record,) = DECODE_PROTO(Record("t/0/0", raw))
    assert record.value == value


@pytest.mark.parametrize(
    ("format_", "value", "reason"),
    [
        (Json(), math.nan, "JSON cannot hold"),
        (Json(), {"a": [math.inf]}, "JSON cannot hold"),
        (Json(), {(1, 2): "a"}, "JSON cannot hold"),
        (Text(), 7, "must be text"),
        (Text(encoding="latin-1"), "€", "no form in latin-1"),
        (Raw(), "text", "must be bytes"),
        (Avro(AVRO_SCHEMA), {"id": "x"}, "not of the schema"),
        (Avro('"int"'), 2**31, "not of the schema"),
        (PROTO, {"id": "x"}, "not of wood.Tree"),
        (PROTO, {"id": 2**63}, "not of wood.Tree"),
        (PROTO, {"id": True}, "not of wood.Tree"),
        (PROTO, {"unknown": 1}, "no field 'unknown'"),
        (PROTO, {"kinds": ["BIRCH"]}, "no value 'BIRCH'"),
        (PROTO, [], "must be named fields"),
    ],
)
def test_a_value_that_the_format_cannot_hold_is_rejected(
    format_: Any, value: Any, reason: str
) -> None:
    with pytest.raises(Rejected, match=reason):
        format_.encoder("t")(Record("a", value))


@given(st.integers(-(2**62), 2**62))
def test_times_are_rounded_down_in_each_unit(number: int) -> None:
    assert timestamp_ms(number, "epoch_ms") == timestamp_ms(str(number), "epoch_ms") == number
    assert timestamp_ms(number, "epoch_us") == number // 1000


@given(st.datetimes())
def test_times_in_iso_8601_are_read_in_utc(at: Any) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = (at.replace(tzinfo=UTC) - epoch) // timedelta(milliseconds=1)
    assert timestamp_ms(at.isoformat(), "auto") == expected
    assert timestamp_ms(f"{at.isoformat()}Z", "iso_8601") == expected
