"""A dead letter holds the very record, and says which letters are asked for."""

import json
import re
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_flink.common import Failed, Record, Rejected, encode
from sage_flink.common.letters import (
    Letter,
    Marker,
    Posted,
    Wanted,
    distinct,
    letter_message,
    marker_message,
    read,
    schema,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats()
# The keys that a letter itself uses must not confuse it.
KEYS = TEXT | st.sampled_from(["base64", "utf8", "map", "msgpack", "repr"])
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT | st.binary() | st.datetimes()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(st.integers(-100, 100) | st.binary() | st.booleans(), inner)
    ),
    max_leaves=10,
)
HEADERS = st.dictionaries(TEXT, st.binary())


def again(record):
    """The record after its way through a letter."""
    said = read(Record("t/0/0", Failed.of(record, "step", "why").to_json()))
    assert isinstance(said, Letter)
    return said.record()


@given(value=VALUES, id_=TEXT, key=st.none() | st.binary(), headers=HEADERS, origin=TEXT)
def test_a_record_comes_out_of_its_letter_as_it_went_in(value, id_, key, headers, origin):
    record = Record(id_, value, 1_700_000_000_000, key, headers, origin or id_)

    assert encode(again(record)) == encode(record)


@given(value=st.text() | st.dictionaries(st.text(), st.text()), key=st.none() | st.binary())
def test_text_that_no_wire_can_carry_comes_out_as_it_went_in(value, key):
    assert again(Record("a", value, key=key, origin="a")) == Record("a", value, key=key, origin="a")


LARGE = 10 << 20


@pytest.mark.parametrize(
    ("value", "times"),
    [
        (b"\x00" * LARGE, 1.4),
        (b"\xff" * LARGE, 1.4),
        (b'"\\' * (LARGE // 2), 1.4),
        ("\x00" * LARGE, 1.4),
        ('"\n' * (LARGE // 2), 1.4),
        ("word " * (LARGE // 5), 1.1),
        ({"text": "x" * LARGE + "\ud800"}, 1.4),
        ([""] * (LARGE // 16), 0.1),
        ({"vector": b"\x01\x02\x03\x04" * (LARGE // 4)}, 1.4),
    ],
    ids=lambda v: None if isinstance(v, float) else f"{type(v).__name__}",
)
def test_ten_megabytes_stay_about_ten_megabytes(value, times):
    record = Record("a", value, origin="a")

    letter = Failed.of(record, "step", "why").to_json()

    assert len(letter) < times * LARGE
    assert again(record) == record


def test_a_value_that_cannot_travel_is_shown_and_cannot_be_had_back():
    deep = []
    for _ in range(5_000):
        deep = [deep]

    for value in (object(), {"a": {1, 2}, "b": object()}, deep):
        letter = read(Record("t/0/0", Failed.of(Record("a", value), "step", "why").to_json()))
        with pytest.raises(Rejected, match="only how it looked is known"):
            letter.record()


def test_names_with_surrogates_are_spelled():
    letter = read(Record("t/0/0", Failed.of(Record("\ud800", 1), "step", "\udfff").to_json()))

    assert (letter.id, letter.reason) == ("\\ud800", "\\udfff")


@pytest.mark.parametrize(
    ("payload", "encoding", "value"),
    [
        ("plain", "text", b"plain"),
        ("/w==", "base64", b"\xff"),
        ('{"a": {"base64": "/w=="}}', "json", {"a": b"\xff"}),
        ('{"map": [1, 2]}', "json", {"map": [1, 2]}),
    ],
)
def test_letters_from_before_versions_are_read(payload, encoding, value):
    old = {
        "id": "t/0/1",
        "step": "decode",
        "reason": "why",
        "attempts": 2,
        "payload": payload,
        "payload_encoding": encoding,
        "origin": "t/0/1",
        "timestamp_ms": 5,
    }

    letter = read(Record("dead/0/0", json.dumps(old).encode()))

    assert (letter.v, letter.job, letter.attempts) == (0, "", 2)
    assert letter.record() == Record("t/0/1", value, 5, None, {}, "t/0/1")


@pytest.mark.parametrize("said", [None, b"", b"\xff", b"[]", b'{"id": 1}', b'{"v": 2}'])
def test_what_is_no_letter_is_told_with_its_position(said):
    with pytest.raises(Rejected, match="dead/0/7: neither a letter nor a marker"):
        read(Record("dead/0/7", said))


def test_the_writer_and_the_schema_have_the_same_fields():
    written = {f.encode_name: f for f in msgspec.structs.fields(Failed)}
    required = {name for name, f in written.items() if f.required}

    assert written.keys() == Letter.model_fields.keys()
    assert required == {name for name, f in Letter.model_fields.items() if f.is_required()}


@given(VALUES, st.none() | st.binary(), HEADERS)
@settings(max_examples=30)
def test_the_reader_says_again_what_the_writer_said(value, key, headers):
    said = Failed.of(Record("a", value, key=key, headers=headers), "s", "why").of_job("j").to_json()

    assert json.loads(Letter.model_validate_json(said).model_dump_json()) == json.loads(said)


def test_the_published_schema_is_the_models():
    text = (files("sage_flink.common") / "letter.schema.json").read_text()

    assert json.loads(text) == schema()


def test_messages_say_in_headers_what_they_are():
    failed = Failed.of(Record("a", 1), "split", "why").of_job("job")
    message = letter_message(failed.to_json(), failed.id, failed.step, "job", "job.replay")
    letter = read(message)
    marker = marker_message(Posted("dead/0/3", 5, letter), "dead/0/3")

    assert message.headers == {
        "sage-step": b"split",
        "sage-job": b"job",
        "sage-run": b"job.replay",
    }
    assert marker.headers["sage-replayed"] == b"dead/0/3"
    assert read(marker) == Marker(replayed="dead/0/3")


def posted(offset=0, step="split", reason="why", id_="a", value=1, at=100):
    failed = Failed.of(Record(id_, value), step, reason)
    return Posted(f"dead/0/{offset}", at, read(Record("x", failed.to_json())))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Wanted(), True),
        (Wanted(step="split", reason=re.compile("^w"), since_ms=100, id="a"), True),
        (Wanted(step="embed"), False),
        (Wanted(reason=re.compile("^h")), False),
        (Wanted(since_ms=101), False),
        (Wanted(id="b"), False),
    ],
)
def test_all_that_is_asked_for_must_fit(wanted, fits):
    letter = posted()
    message = letter_message(b"", "a", "split", "j", "j").replace(timestamp_ms=100)

    assert wanted(letter) is fits
    assert wanted.may_be(message) in {fits, True}
    if wanted.reason is None:
        assert wanted.may_be(message) is fits


def test_of_letters_of_the_same_record_the_first_stands_for_all():
    twins = [posted(0, at=1, reason="x"), posted(1), posted(2, value=2), posted(3, step="t")]

    found = list(distinct(twins, Wanted(since_ms=50)))

    assert [(p.position, p.also) for p in found] == [
        ("dead/0/0", ("dead/0/1",)),
        ("dead/0/2", ()),
        ("dead/0/3", ()),
    ]
