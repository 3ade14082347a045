"""Any value is encoded as bytes, readable JSON where possible, and is decoded unchanged."""

import pytest
from hypothesis import Phase, find, given, settings
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


#: Hypothesis rarely generates surrogates by itself; two kinds of `characters` it would merge.
ANY_TEXT = st.text(st.characters(codec=None) | st.integers(0xD800, 0xDFFF).map(chr))


def has_surrogate(text):
    return any("\ud800" <= character <= "\udfff" for character in text)


@given(ANY_TEXT | st.dictionaries(ANY_TEXT, ANY_TEXT) | st.floats(allow_nan=False))
def test_text_with_surrogates_is_decoded_unchanged(value):
    assert from_bytes(*to_bytes(value)) == value


def test_the_texts_of_the_test_before_have_surrogates():
    any_example = settings(phases=[Phase.generate])  # not the smallest
    assert has_surrogate(find(ANY_TEXT, has_surrogate, settings=any_example))


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


def test_more_than_16_mib_are_written_in_the_smaller_form():
    quoted = '"' + "x" * 8 + "\n"

    data, encoding = to_bytes({"text": quoted * (20 << 17)})

    assert encoding == "msgpack"
    assert len(data) < 26 << 20
    assert from_bytes(data, encoding) == {"text": quoted * (20 << 17)}


class Unprintable:
    def __repr__(self):
        raise OSError


def test_a_value_that_cannot_be_printed_is_named_by_its_type():
    assert to_bytes({"n": 10**5000}) == (b"<dict>", "repr")
    assert to_bytes(10**5000) == (b"<int>", "repr")
    assert to_bytes([Unprintable()])[0].startswith(b"[<Unprintable instance at")


class OddList(list):
    def __iter__(self):
        raise OSError


def test_to_bytes_does_not_raise_what_a_class_of_the_author_raises():
    assert to_bytes(OddList([1]))[1] in {"json", "msgpack", "repr"}


def test_an_omitted_value_is_rejected_with_its_note():
    with pytest.raises(Rejected, match=r"^the value was omitted: too large$"):
        from_bytes(b"too large", "omitted")


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
