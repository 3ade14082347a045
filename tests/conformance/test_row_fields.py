"""The fields of a row are JSON: what is not is refused alone, everything else is kept as it is."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from waiting import wait_until

from sage_flink.db import VectorRow, VectorStore
from sage_flink.db.vectors import pack

EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "field 'f' is nan; JSON has no such number"),
        ([{"a": float("inf")}], "field 'f' is inf; JSON has no such number"),
        (datetime(2026, 1, 1, tzinfo=UTC), "field 'f' is not JSON but datetime"),
        (2**63, "field 'f' is a whole number of more than 64 bits"),
        (b"x", "field 'f' is not JSON but bytes"),
        ({1: "a"}, "field 'f' holds a name that must be text, got 1"),
        ("\ud800", "field 'f' is not Unicode text"),
        (nested(40), "field 'f' is nested more than 32 deep"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_row_that_is_not_json_is_refused_and_the_others_are_stored(
    store: VectorStore, value: Any, reason: str
) -> None:
    made = [VectorRow(f"r{n}", pack(EAST)) for n in range(5)]
    made[2] = replace(made[2], fields={"f": value})

    (refused,) = store.upsert(made)

    assert refused.id == "r2"
    assert refused.reason.startswith(reason)
    assert store.count() == 4


ODD_FIELDS = {
    "": "empty",
    " ": " ",
    "a.b": [None, True, 1.5, {"x": []}],
    "日本": "🦅",
    'q"': '\\ " \n \x00',
    "n": -(2**63),
    "deep": nested(30),
}


@pytest.mark.parametrize("name", ODD_FIELDS)
def test_a_field_with_an_odd_name_or_value_is_returned_unchanged(
    store: VectorStore, name: str
) -> None:
    made = VectorRow("r", pack(EAST), {name: ODD_FIELDS[name]})

    assert list(store.upsert([made])) == []

    wait_until(lambda: store.search(EAST, 1), 30, "the row")
    assert store.search(EAST, 1)[0].fields == made.fields
