"""The wire form, ids and kinds of records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import Record, Rejected, decode, derived_id, encode
from sage_flink.common.records import encode_valid

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
    made = derived_id(parent, step, ordinal)

    assert made == derived_id(parent, step, ordinal)
    assert len(made) == 32


def test_a_child_of_another_step_or_ordinal_has_another_id():
    record = Record(id="a", value=1)

    assert len({record.child(s, i, 0).id for s in ("x", "y") for i in range(3)}) == 6


def test_a_record_of_the_wire_form_before_kinds_is_an_upsert():
    before = bytes.fromhex("96a5612f302f37c402010205c4016b81a168c40176a16f")

    record = Record("a/0/7", b"\x01\x02", 5, b"k", {"h": b"v"}, "o")
    assert decode(before) == record
    assert encode(record).hex() == f"99{before.hex()[2:]}a6757073657274a0a0"


def test_a_delete_keeps_all_but_its_value():
    record = Record("a", {"n": 1}, 5, b"k", {"h": b"v"}, "o")

    delete = record.delete_of("doc", version="v", id="d")

    assert delete == Record("d", None, 5, b"k", {"h": b"v"}, "o", "delete", "doc", "v")
    assert decode(encode(delete)) == delete


@given(value=PLAIN, timestamp_ms=st.integers(-(2**63), 2**63 - 1))
def test_a_valid_record_has_one_wire_form(value, timestamp_ms):
    record = Record("a", value, timestamp_ms, b"k", {"h": b"v"}, "o")

    assert encode_valid(record) == encode(record)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"timestamp_ms": 2**63}, "timestamp_ms must be a whole number of 64 bits"),
        ({"timestamp_ms": -(2**63) - 1}, "timestamp_ms must be a whole number of 64 bits"),
        ({"timestamp_ms": 10**5000}, "timestamp_ms must be a whole number .* got <int>$"),
        ({"timestamp_ms": True}, "timestamp_ms must be a whole number of 64 bits, got True"),
        ({"timestamp_ms": 1.5}, "timestamp_ms must be a whole number of 64 bits, got 1.5"),
        ({"key": "k"}, "key must be bytes or None, got 'k'"),
        ({"kind": "remove"}, "kind must be 'upsert' or 'delete', got 'remove'"),
        ({"id": 7}, "id, origin, document and version must be text"),
        ({"id": 7, "origin": 7, "document": 7, "version": 7}, "id must be text, got 7"),
        ({"version": None}, "id, origin, document and version must be text"),
        ({"headers": None}, "headers must be a dict of bytes by name, got None"),
        ({"headers": {"h": "v"}}, "headers must be a dict of bytes by name, got {'h': 'v'}"),
        ({"headers": {1: b"v"}}, "headers must be a dict of bytes by name, got {1: b'v'}"),
        ({"id": "\ud800"}, "record cannot be encoded: UnicodeEncodeError"),
        ({"value": "\ud800"}, "record cannot be encoded: UnicodeEncodeError"),
        ({"value": 2**64}, "record cannot be encoded: OverflowError"),
        ({"value": object()}, "record cannot be encoded: TypeError"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_a_record_that_no_process_can_decode_is_rejected_with_its_field(fields, reason):
    record = Record(**{"id": "a", "value": 1, "origin": "o", **fields})

    with pytest.raises(Rejected, match=f"^the (record's )?{reason}"):
        encode_valid(record)


def test_a_record_larger_than_a_task_can_hold_is_refused():
    fits = Record("r", b"x" * (64 << 20))

    assert decode(encode_valid(fits)) == fits
    with pytest.raises(
        Rejected, match=r"the record has \d+ bytes, at most 68157440 can be sent on"
    ):
        encode_valid(Record("r", b"x" * (65 << 20)))
