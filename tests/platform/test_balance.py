"""The balance: what adds up, what is in flight, and what is named when it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.platform.balance import (
    Books,
    Step,
    balance,
    counter,
    counters,
    shape,
    steps_of,
)

STEPS = (
    Step("documents", "read", ()),
    Step("notes", "read", ()),
    Step("all", "union", ("documents", "notes")),
    Step("split", "flat_map", ("all",)),
    Step("embed", "call", ("split",)),
    Step("vectors.batch", "batch", ("embed",)),
    Step("vectors", "write", ("vectors.batch",)),
    Step("copy", "write", ("embed",)),
    Step("dead-letters", "dead_letters", ()),
)


def books(**changes):
    """A job that read 10 + 5, split them into 100 but for 1, and embedded all but 3."""
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
    flat = {counter(step, what): n for step, whats in counts.items() for what, n in whats.items()}
    return Books({**flat, **{name.replace("__", "."): n for name, n in changes.items()}})


def test_a_job_that_lost_nothing_closes():
    found = balance(STEPS, books())

    assert found.closes
    assert found.gaps == ()
    rows = {row.step: row for row in found.rows}
    assert "all" not in rows
    assert (rows["embed"].read, rows["embed"].emitted, rows["embed"].dead_lettered) == (100, 97, 3)
    assert (rows["vectors.batch"].emitted, rows["vectors"].written) == (97, 95)


def test_what_is_asked_and_what_waits_is_in_flight_and_no_gap():
    counts = books().counts | {
        "embed.answered": 90,
        "embed.emitted": 88,
        "vectors.batch.read": 88,
        "copy.read": 88,
        "copy.written": 88,
        "vectors.read": 80,
        "vectors.written": 78,
    }

    found = balance(STEPS, Books(counts))

    assert found.gaps == ()
    assert not found.closes
    assert {row.step: row.in_flight for row in found.rows if row.in_flight} == {
        "embed": 9,
        "vectors.batch": 8,
    }
    assert found.in_flight == 17


@pytest.mark.parametrize(
    ("doctored", "gap"),
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
        ({"embed__asked": 98}, "embed: 1 more came out than went in"),
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
def test_each_place_where_a_record_went_missing_is_named(doctored, gap):
    found = balance(STEPS, books(**doctored))

    assert gap in found.gaps
    assert not found.closes


def test_a_step_that_came_later_agrees_on_what_came_after_it():
    grown = (
        *STEPS[:3],
        Step("clean", "flat_map", ("all",)),
        Step("split", "flat_map", ("clean",)),
        *STEPS[4:],
    )
    before = books().counts
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

    assert balance(grown, Books(after, opening=before)).closes
    assert not balance(grown, Books(after)).closes


def test_the_steps_survive_their_text_form():
    assert steps_of(shape(STEPS)) == STEPS


COUNT = st.integers(0, 10**6)


@given(st.data())
def test_a_change_of_any_one_count_opens_the_balance(data):
    whole = books().counts
    name = data.draw(st.sampled_from(sorted(whole)))
    by = data.draw(st.integers(-(10**6), 10**6).filter(bool))

    assert not balance(STEPS, Books(whole | {name: whole[name] + by})).closes


@given(read=COUNT, dead=COUNT, lost=st.integers(1, 100))
def test_any_flow_closes_and_any_loss_on_it_does_not(read, dead, lost):
    steps = (
        Step("in", "read", ()),
        Step("out", "write", ("in",)),
        Step("dead-letters", "dead_letters", ()),
    )
    counts = dict.fromkeys(counters(steps), 0) | {
        "in.read": read + dead,
        "in.emitted": read + dead,
        "out.read": read + dead,
        "out.written": read,
        "out.dead_lettered": dead,
        "dead-letters.read": dead,
        "dead-letters.written": dead,
    }

    assert balance(steps, Books(counts)).closes
    assert not balance(steps, Books(counts | {"out.written": read - lost})).closes
