"""Any value is encoded as bytes, readable JSON where possible, and is decoded unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import Rejected
from sage_flink.common.value_encoding import from_bytes, to_bytes

LARGE = 10 << 20


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (b"plain", (b"plain", "bytes")),
        (b"\xff\x00", (b"\xff\x00", "bytes")),
        (None, (None, "null")),
        ("plain", (b'"plain"', "json")),
        ({"a": [1, None, True, 2.5]}, (b'{"a": [1, null, true, 2.5]}', "json")),
        ({"$delete": {"doc": "a"}}, (b'{"$delete": {"doc": "a"}}', "json")),
        ({"a": b"\x01"}, (b"\x81\xa1a\xc4\x01\x01", "msgpack")),
        ({1: "a"}, (b"\x81\x01\xa1a", "msgpack")),
        (2**70, (b"1180591620717411303424", "json")),
    ],
)
def test_a_value_is_plain_json_where_json_is_exact(value, encoded):
    assert to_bytes(value) == encoded
    assert from_bytes(*encoded) == value


@given(st.text() | st.dictionaries(st.text(), st.text()) | st.floats(allow_nan=False))
def test_text_with_surrogates_is_decoded_unchanged(value):
    assert from_bytes(*to_bytes(value)) == value


@pytest.mark.parametrize(
    ("value", "times"),
    [
        (b"\x00" * LARGE, 1.0),
        ("\x00" * LARGE, 1.4),
        ('"\n' * (LARGE // 2), 1.4),
        ("word " * (LARGE // 5), 1.1),
        ({"text": "x" * LARGE + "\ud800"}, 1.1),
        ([""] * (LARGE // 16), 0.1),
        ({"vector": b"\x01\x02\x03\x04" * (LARGE // 4)}, 1.1),
    ],
    ids=lambda v: None if isinstance(v, float) else f"{type(v).__name__}",
)
def test_ten_megabytes_stay_about_ten_megabytes(value, times):
    data, encoding = to_bytes(value)

    assert len(data) <= times * LARGE
    assert from_bytes(data, encoding) == value


def test_a_value_that_cannot_be_encoded_is_shown_as_text_and_not_decoded():
    deep = []
    for _ in range(5_000):
        deep = [deep]

    for value in (object(), {"a": {1, 2}, "b": object()}, deep):
        data, encoding = to_bytes(value)
        assert encoding == "repr"
        with pytest.raises(Rejected, match="the value cannot be read back"):
            from_bytes(data, encoding)


@pytest.mark.parametrize(
    ("data", "encoding"), [(b"{", "json"), (b"\xc1", "msgpack"), (None, "json"), (b"x", "other")]
)
def test_bytes_of_another_encoding_are_rejected(data, encoding):
    with pytest.raises(Rejected):
        from_bytes(data, encoding)
