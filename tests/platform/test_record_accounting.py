"""Record accounting: balanced counts, records in flight, and the report of a missing record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.platform.record_accounting import (
    CountedStep,
    CounterSnapshot,
    balance,
    counter_name,
    counter_names,
    decode_steps,
    encode_steps,
)

STEPS = (
    CountedStep("documents", "read", ()),
    CountedStep("notes", "read", ()),
    CountedStep("all", "union", ("documents", "notes")),
    CountedStep("split", "flat_map", ("all",)),
    CountedStep("embed", "call", ("split",)),
    CountedStep("vectors.batch", "batch", ("embed",)),
    CountedStep("vectors", "write", ("vectors.batch",)),
    CountedStep("copy", "write", ("embed",)),
    CountedStep("dead-letters", "dead_letters", ()),
)


def snapshot(**changes):
    """A job that read 10 + 5 records, split 14 of them into 100 and embedded 97 of those."""
    counts = {
        "documents": {"read": 10, "emitted": 10},
        "notes": {"read": 5, "emitted": 5},
        "split": {"read": 15, "emitted": 100, "dead_lettered": 1},
        "embed": {"read": 100, "asked": 99, "answered": 99, "emitted": 97, "dead_lettered": 3},
        "vectors.batch": {"read": 97},
        "vectors": {"read": 97, "written": 95, "dead_lettered": 2},
        "copy": {"read": 97, "written": 97, "dead_lettered": 0},
        "dead-letters": {"read": 6, "written": 6},
    }
    flat = {
        counter_name(step, what): n for step, whats in counts.items() for what, n in whats.items()
    }
    return CounterSnapshot({**flat, **{name.replace("__", "."): n for name, n in changes.items()}})


def test_a_job_that_lost_no_record_is_balanced():
    found = balance(STEPS, snapshot())

    assert found.is_balanced
    assert found.gaps == ()
    rows = {row.step: row for row in found.rows}
    assert "all" not in rows
    assert (rows["embed"].read, rows["embed"].emitted, rows["embed"].dead_lettered) == (100, 97, 3)
    assert (rows["vectors.batch"].emitted, rows["vectors"].written) == (97, 95)


def test_calls_without_a_result_and_records_in_a_batch_are_in_flight_and_not_missing():
    counts = snapshot().counts | {
        "embed.answered": 90,
        "embed.emitted": 88,
        "vectors.batch.read": 88,
        "copy.read": 88,
        "copy.written": 88,
        "vectors.read": 80,
        "vectors.written": 78,
    }

    found = balance(STEPS, CounterSnapshot(counts))

    assert found.gaps == ()
    assert not found.is_balanced
    assert {row.step: row.in_flight for row in found.rows if row.in_flight} == {
        "embed": 9,
        "vectors.batch": 8,
    }
    assert found.in_flight == 17


@pytest.mark.parametrize(
    ("changes", "gap"),
    [
        ({"split__read": 14}, "all -> split: 15 emitted, 14 read (1 missing)"),
        ({"split__emitted": 99}, "split -> embed: 99 emitted, 100 read (1 too many)"),
        (
            {"vectors__written": 94},
            "vectors: 97 read, 94 written + 2 dead-lettered (1 missing)",
        ),
        (
            {"copy__written": 98},
            "copy: 97 read, 98 written + 0 dead-lettered (1 too many)",
        ),
        ({"embed__asked": 98}, "embed: 1 more left the step than entered it"),
        (
            {"dead-letters__read": 5, "dead-letters__written": 5},
            "all steps -> dead-letters: 6 refused, 5 read (1 missing)",
        ),
        (
            {"dead-letters__written": 5},
            "dead-letters: 6 read, 5 written + 0 dead-lettered (1 missing)",
        ),
    ],
)
def test_each_place_where_a_record_is_missing_is_reported(changes, gap):
    found = balance(STEPS, snapshot(**changes))

    assert gap in found.gaps
    assert not found.is_balanced


def test_a_step_added_later_is_compared_only_from_then_on():
    extended = (
        *STEPS[:3],
        CountedStep("clean", "flat_map", ("all",)),
        CountedStep("split", "flat_map", ("clean",)),
        *STEPS[4:],
    )
    before = snapshot().counts
    after = before | {
        "documents.read": 12,
        "documents.emitted": 12,
        "clean.read": 2,
        "clean.emitted": 1,
        "clean.dead_lettered": 1,
        "split.read": 16,
        "dead-letters.read": 8,
        "dead-letters.written": 8,
        "split.dead_lettered": 2,
    }

    assert balance(extended, CounterSnapshot(after, opening=before)).is_balanced
    assert not balance(extended, CounterSnapshot(after)).is_balanced


def test_steps_survive_encoding_and_decoding():
    assert decode_steps(encode_steps(STEPS)) == STEPS


COUNT = st.integers(0, 10**6)


@given(st.data())
def test_changing_any_single_counter_breaks_the_balance(data):
    counts = snapshot().counts
    name = data.draw(st.sampled_from(sorted(counts)))
    by = data.draw(st.integers(-(10**6), 10**6).filter(bool))

    assert not balance(STEPS, CounterSnapshot(counts | {name: counts[name] + by})).is_balanced


@given(read=COUNT, dead=COUNT, lost=st.integers(1, 100))
def test_any_complete_flow_is_balanced_and_any_loss_breaks_the_balance(read, dead, lost):
    steps = (
        CountedStep("in", "read", ()),
        CountedStep("out", "write", ("in",)),
        CountedStep("dead-letters", "dead_letters", ()),
    )
    counts = dict.fromkeys(counter_names(steps), 0) | {
        "in.read": read + dead,
        "in.emitted": read + dead,
        "out.read": read + dead,
        "out.written": read,
        "out.dead_lettered": dead,
        "dead-letters.read": dead,
        "dead-letters.written": dead,
    }

    assert balance(steps, CounterSnapshot(counts)).is_balanced
    assert not balance(steps, CounterSnapshot(counts | {"out.written": read - lost})).is_balanced
