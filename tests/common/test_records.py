"""The wire form, ids and kinds of records."""

from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import Record, decode, derived_id, encode

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
