"""The wire form, ids, and the dead-letter envelope."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import Failed, Record, decode, derived_id, encode

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@given(value=PLAIN, key=st.none() | st.binary(), timestamp_ms=st.integers(0, 2**62))
def test_a_record_reads_back_as_it_was(value, key, timestamp_ms):
    record = Record(id="a", value=value, key=key, timestamp_ms=timestamp_ms, headers={"h": b"1"})

    assert decode(encode(record)) == record


@given(st.text(), st.text(), st.integers(0, 10**6))
def test_derived_ids_are_pure_and_short(parent, step, ordinal):
    try:
        made = derived_id(parent, step, ordinal)
    except UnicodeEncodeError:
        return

    assert made == derived_id(parent, step, ordinal)
    assert len(made) == 32


def test_a_child_of_another_step_or_place_has_another_id():
    record = Record(id="a", value=1)

    assert len({record.child(s, i, 0).id for s in ("x", "y") for i in range(3)}) == 6


@pytest.mark.parametrize(
    ("value", "payload", "encoding"),
    [
        (b"plain", "plain", "text"),
        (b"\xff", base64.b64encode(b"\xff").decode(), "base64"),
        (b"\x00" * 50, base64.b64encode(b"\x00" * 50).decode(), "base64"),
        ({"a": b"\x01"}, '{"a": {"base64": "AQ=="}}', "json"),
        ("plain", '"plain"', "json"),
    ],
)
def test_the_payload_of_a_dead_letter_can_be_had_back(value, payload, encoding):
    failed = Failed.of(Record(id="t/0/1", value=value), "decode", "why", attempts=2)

    letter = json.loads(failed.to_json())

    assert (letter["payload"], letter["payload_encoding"]) == (payload, encoding)
    assert (letter["id"], letter["step"], letter["reason"]) == ("t/0/1", "decode", "why")
    assert letter["attempts"] == 2
