"""A dead letter keeps its record and the reason of the failure, and can be filtered by both."""

import re

import pytest
from delete_shapes import SHAPED_LIKE_DELETES
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import FailedRecord, Record, Rejected, encode
from sage_flink.common.dead_letters import (
    REPLAYED,
    DeadLetterFilter,
    distinct,
    from_message,
    replay_mark,
    to_message,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
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
HEADERS = st.dictionaries(TEXT, st.binary())


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


@given(value=st.text() | st.dictionaries(st.text(), st.text()), key=st.none() | st.binary())
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
