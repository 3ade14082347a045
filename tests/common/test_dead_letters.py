"""A dead letter keeps its record and the reason of the failure, and can be filtered by both."""

import re

import pytest
from delete_shapes import SHAPED_LIKE_DELETES
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from sage_flink.common import FailedRecord, Record, Rejected, encode
from sage_flink.common.dead_letters import (
    MESSAGE_BYTES_MAX,
    PREFIX,
    REPLAYED,
    DeadLetterFilter,
    distinct,
    from_message,
    replay_mark,
    to_message,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
#: Hypothesis rarely generates surrogates by itself; two kinds of `characters` it would merge.
ANY_TEXT = st.text(st.characters(codec=None) | st.integers(0xD800, 0xDFFF).map(chr))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats()
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT | st.binary() | st.datetimes()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(TEXT, inner)
        | st.dictionaries(st.integers(-100, 100) | st.binary() | st.booleans(), inner)
    ),
    max_leaves=10,
)
#: Hypothesis also tries the texts of this repository, and a header with the prefix is dropped.
HEADERS = st.dictionaries(TEXT.filter(lambda name: not name.startswith(PREFIX)), st.binary())


def dead_letter_of(
    record, step="step", reason="why", attempts=1, job="job", run="", offset=0, at=0
):
    """The dead letter of a record, as it is read from its topic."""
    message = to_message(FailedRecord(record, step, reason, attempts), job, run)
    # The id of a message in the topic is its position; without a key the record id is the key.
    key = message.id.encode() if message.key is None else message.key
    place = f"dead/0/{offset}"
    return from_message(message.replace(id=place, origin=place, key=key, timestamp_ms=at))


@given(value=VALUES, id_=TEXT, key=st.none() | st.binary(), headers=HEADERS, origin=TEXT)
def test_a_record_is_restored_from_its_dead_letter_unchanged(value, id_, key, headers, origin):
    record = Record(id_, value, 1_700_000_000_000, key, headers, origin or id_)

    assert encode(dead_letter_of(record).record()) == encode(record)


def test_the_texts_of_the_next_test_are_not_all_valid_unicode():
    # Any example will do: to find the smallest one takes seconds.
    assert find(
        ANY_TEXT,
        lambda text: any("\ud800" <= c <= "\udfff" for c in text),
        settings=settings(phases=[Phase.generate]),
    )


@given(value=ANY_TEXT | st.dictionaries(ANY_TEXT, ANY_TEXT), key=st.none() | st.binary())
def test_text_that_is_not_valid_unicode_is_restored_unchanged(value, key):
    record = Record("a", value, key=key, origin="a")

    assert dead_letter_of(record).record() == record


def test_bytes_of_a_source_are_the_messages_value_and_the_failure_is_in_headers():
    record = Record("t/0/1", b'{"id": ', 5, b"k", {"tenant": b"\xff"}, "t/0/1")

    message = to_message(FailedRecord(record, "decode", "not JSON", 2), "job", "job.replay")

    assert (message.value, message.key) == (b'{"id": ', b"k")
    assert message.headers == {
        "tenant": b"\xff",
        "sage.dead-letter.id": b"t/0/1",
        "sage.dead-letter.step": b"decode",
        "sage.dead-letter.reason": b"not JSON",
        "sage.dead-letter.attempts": b"2",
        "sage.dead-letter.job": b"job",
        "sage.dead-letter.run": b"job.replay",
        "sage.dead-letter.origin": b"t/0/1",
        "sage.dead-letter.timestamp-ms": b"5",
        "sage.dead-letter.encoding": b"bytes",
    }
    assert message.timestamp_ms == 0


@pytest.mark.parametrize("value", SHAPED_LIKE_DELETES, ids=repr)
def test_a_value_shaped_like_a_delete_stays_a_value(value):
    record = Record("a", value, origin="a")

    letter = dead_letter_of(record)

    assert (letter.kind, letter.record()) == ("upsert", record)


def test_a_failed_delete_is_restored_as_a_delete():
    delete = Record("a", None, 7, b"k", origin="t/0/1").delete_of("doc", version="v2", id="d")

    letter = dead_letter_of(delete)

    assert letter.kind == "delete"
    assert letter.record() == delete


def test_headers_of_the_record_cannot_override_those_of_the_failure():
    mine = {"sage.dead-letter.kind": b"delete", "sage.dead-letter.step": b"x", "own": b"1"}

    letter = dead_letter_of(Record("a", 1, headers=mine))

    assert (letter.kind, letter.step, letter.headers) == ("upsert", "step", {"own": b"1"})


def test_surrogates_in_names_are_escaped():
    letter = dead_letter_of(Record("\ud800", 1), reason="\udfff")

    assert (letter.id, letter.reason) == ("\\ud800", "\\udfff")


@pytest.mark.parametrize(
    "headers",
    [{}, {"sage.dead-letter.id": b"a"}, {"sage-step": b"x", "sage-job": b"y"}],
)
def test_a_message_that_is_not_a_dead_letter_is_rejected_with_its_position(headers):
    with pytest.raises(Rejected, match=r"dead/0/7: not a dead letter: no header sage\.dead-letter"):
        from_message(Record("dead/0/7", b'{"v": 1}', headers=headers))


def test_attempts_that_are_not_a_number_are_rejected():
    message = to_message(FailedRecord(Record("a", 1), "step", "why"), "job")
    headers = {**message.headers, "sage.dead-letter.attempts": b"many"}

    with pytest.raises(Rejected, match="attempts is 'many'"):
        from_message(message.replace(headers=headers))


@pytest.mark.parametrize("time", ["soon", "9223372036854775808", "9" * 5000])
def test_a_time_that_is_not_one_is_rejected(time):
    message = to_message(FailedRecord(Record("a", 1), "step", "why"), "job")
    headers = {**message.headers, "sage.dead-letter.timestamp-ms": time.encode()}

    with pytest.raises(Rejected, match="timestamp-ms is '"):
        from_message(message.replace(headers=headers))


def kafka_bytes(message):
    """The size of a message as the producer estimates it. Source: Kafka, DefaultRecordBatch."""
    key = message.id.encode() if message.key is None else message.key
    headers = sum(len(n.encode()) + len(v) + 10 for n, v in message.headers.items())
    return 61 + 21 + len(key) + len(message.value or b"") + headers


#: Made by the test, not when the file is imported: they have 280 MB.
LARGE = {
    "a file of 40 MB": lambda: Record("big.txt", b"x" * 40_000_000, origin="big.txt"),
    "JSON of 33 MiB": lambda: Record("a", {"text": "x" * (33 << 20)}, origin="t/0/1"),
    "a message at Kafka's limit": lambda: Record(
        "t/0/1", b"x" * (30 << 20), 5, b"k" * (1 << 20), {"h": b"v" * (1 << 19)}, "t/0/1"
    ),
    "headers": lambda: Record("a", b"x", headers={"h": b"v" * (33 << 20)}, origin="o"),
    "a key": lambda: Record("a", b"x", key=b"k" * (33 << 20), origin="o"),
    "names": lambda: Record("a" * (33 << 20), b"x", origin="o" * (33 << 20)),
    "a delete": lambda: Record("a", None).delete_of("d" * (33 << 20), id="d"),
}


@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
def test_a_dead_letter_of_any_record_fits_a_message_of_kafka(make):
    record = make()
    message = to_message(FailedRecord(record, "decode", "too large"), "job")

    assert kafka_bytes(message) <= 32 << 20
    letter = dead_letter_of(record, step="decode", reason="too large")
    assert (letter.step, letter.reason, letter.encoding) == ("decode", "too large", "omitted")
    assert letter.id == record.id or record.id.startswith(letter.id[:1000])
    source = (record.origin or record.id)[:1000]
    with pytest.raises(Rejected, match=r"^the value was omitted: the record has \d+ bytes") as e:
        letter.record()
    assert f"its source record is '{source}" in str(e.value)


def test_an_omitted_value_leaves_key_headers_and_origin():
    record = Record("a", b"x" * (32 << 20), 5, b"k", {"h": b"v"}, "big.txt")

    letter = dead_letter_of(record)

    assert (letter.key, letter.headers, letter.origin) == (b"k", {"h": b"v"}, "big.txt")


def test_a_value_just_below_the_limit_is_kept():
    record = Record("a", b"x" * (MESSAGE_BYTES_MAX - 1000), origin="a")

    assert dead_letter_of(record).record() == record


def test_text_of_25_mib_that_json_makes_larger_is_kept():
    record = Record("a", {"text": '"' * (25 << 20)}, origin="a")

    assert dead_letter_of(record).record() == record


def test_a_reason_is_cut_at_2000_characters():
    letter = dead_letter_of(Record("a", 1), reason="x" * (5 << 20))

    assert letter.reason == f"{'x' * 2000} ... (cut, 5242880 characters in all)"
    assert dead_letter_of(Record("a", 1), reason="x" * 2000).reason == "x" * 2000


def test_a_replay_mark_names_the_position():
    mark = replay_mark(dead_letter_of(Record("a", 1)), "dead/0/3")

    assert (mark.headers, mark.key) == ({REPLAYED: b"dead/0/3"}, b"a")
    with pytest.raises(Rejected):
        from_message(mark)


@pytest.mark.parametrize(
    ("chosen", "matches"),
    [
        (DeadLetterFilter(), True),
        (
            DeadLetterFilter(step="split", reason=re.compile("^w"), since_ms=100, id="a"),
            True,
        ),
        (DeadLetterFilter(step="embed"), False),
        (DeadLetterFilter(reason=re.compile("^h")), False),
        (DeadLetterFilter(since_ms=101), False),
        (DeadLetterFilter(id="b"), False),
    ],
)
def test_all_conditions_of_a_filter_must_hold(chosen, matches):
    assert chosen.matches(dead_letter_of(Record("a", 1), step="split", at=100)) is matches


def test_the_first_of_several_dead_letters_of_a_record_represents_them():
    one, other = Record("a", 1), Record("a", 2)
    letters = [
        dead_letter_of(one, reason="x", at=1, offset=0),
        dead_letter_of(one, at=100, offset=1, attempts=3, run="job.replay"),
        dead_letter_of(other, at=100, offset=2),
        dead_letter_of(one, step="t", at=100, offset=3),
    ]

    found = list(distinct(letters, DeadLetterFilter(since_ms=50)))

    assert [(letter.position, letter.also) for letter in found] == [
        ("dead/0/0", ("dead/0/1",)),
        ("dead/0/2", ()),
        ("dead/0/3", ()),
    ]
