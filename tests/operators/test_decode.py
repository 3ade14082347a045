"""A message that is not a document is rejected with a readable reason."""

import json

import pytest

from sage_flink.common import Record, Rejected
from sage_flink.operators import DecodeDocument, DecodeQuestion


def decode(raw, **limits):
    (record,) = DecodeDocument(**limits)(Record(id="t/0/1", value=raw, timestamp_ms=7))
    return record


def test_a_document_keeps_its_own_id_and_time():
    record = decode(b'{"id": "a", "title": "A", "text": "hello", "modified_ms": 5}')

    assert (record.id, record.timestamp_ms) == ("a", 5)
    assert record.value == {"doc": "a", "title": "A", "text": "hello"}


def test_a_document_without_a_time_has_the_time_of_its_message():
    assert decode(b'{"id": "a", "text": "x"}').timestamp_ms == 7


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b"\xff\xfe", "not valid UTF-8 at byte 0"),
        (b'{"id": "a"}', "field 'text' is missing"),
        (b'{"text": "a"}', "field 'id' is missing"),
        (b'{"id": "a", "text": "  "}', "field 'text' is empty"),
        (b'{"id": "a", "text": 3}', "field 'text' must be text, got int"),
        (b'{"id": "a", "text": "x\\u0000y"}', "field 'text' has a NUL at character 1"),
        (b'{"type": "video", "id": "a", "text": "x"}', "unknown message type 'video'"),
        (b'{"id": "a", "text": "x", "modified_ms": "now"}', "field 'modified_ms' must be"),
        (
            b'{"id": "a", "text": "x", "modified_ms": 9223372036854775808}',
            "field 'modified_ms' must be milliseconds since 1970, before the year 2262, got 92233",
        ),
        (
            b'{"id": "a", "text": "x", "modified_ms": 253402300799000}',
            "field 'modified_ms' must be",
        ),
        (
            b'{"id": "a", "text": "x", "modified_ms": 1700000000000000}',
            "field 'modified_ms' must be",
        ),
        (b'{"id": "a", "text": "x", "modified_ms": -1}', "field 'modified_ms' must be"),
        (None, r"the message has no value \(a tombstone\) and no key"),
        (b'{"id": "a", "text": "x", "op": "erase"}', "field 'op' must be 'upsert' or 'delete'"),
        (b'{"op": "delete"}', "field 'id' is missing"),
        (
            json.dumps({"id": "a", "text": "x" * 11}).encode(),
            "field 'text' has 11 bytes; at most 10",
        ),
    ],
)
def test_bad_input_is_rejected_with_its_reason(raw, reason):
    with pytest.raises(Rejected, match="^" + reason):
        decode(raw, text_bytes_max=10)


@pytest.mark.parametrize("title", ["null", '""', '" "', '"\u00a0\u2003"'])
def test_a_title_without_a_sign_is_the_id(title):
    assert decode(b'{"id": "a", "text": "x", "title": %s}' % title.encode()).value["title"] == "a"


def test_a_time_of_null_is_not_given():
    assert decode(b'{"id": "a", "text": "x", "modified_ms": null}').timestamp_ms == 7


def test_a_message_may_start_with_a_byte_order_mark():
    assert decode(b'\xef\xbb\xbf{"id": "a", "text": "x"}').id == "a"


@pytest.mark.parametrize(
    ("id_", "own"), [("0", "0"), ("null", "t/0/1"), ('""', "t/0/1"), ('"q"', "q")]
)
def test_a_question_has_its_own_id_if_it_has_one(id_, own):
    raw = b'{"question": "why?", "id": %s}' % id_.encode()

    (record,) = DecodeQuestion()(Record(id="t/0/1", value=raw))

    assert (record.id, record.value["id"]) == (own, own)


def test_a_question_keeps_the_conversation_before_it():
    raw = b'{"question": "why?", "messages": [{"role": "user", "content": "hi"}]}'

    (record,) = DecodeQuestion()(Record(id="q/0/1", value=raw))

    assert record.id == "q/0/1"
    assert record.value["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("raw", "key", "doc"),
    [
        (None, "ä/1".encode(), "ä/1"),
        (b'{"id": "a", "op": "delete"}', b"another key", "a"),
        (b'{"type": "document", "id": "a", "op": "delete", "text": ""}', None, "a"),
    ],
)
def test_a_tombstone_or_a_delete_operation_is_a_delete_of_its_document(raw, key, doc):
    (record,) = DecodeDocument()(Record("t/0/1", raw, key=key, origin="t/0/1"))

    assert (record.id, record.origin) == (doc, "t/0/1")
    assert (record.kind, record.document, record.version) == ("delete", doc, "")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"", "no key"),
        (b"\xff", "not valid UTF-8"),
        (b" ", "field 'key' is empty"),
        (b"k" * 600, "field 'key' has 600 bytes; at most 512"),
        (b"a\x00b", "field 'key' has a NUL at character 1"),
    ],
)
def test_a_tombstone_without_a_document_id_is_rejected(key, reason):
    with pytest.raises(Rejected, match=reason):
        DecodeDocument()(Record("t/0/1", None, key=key))
