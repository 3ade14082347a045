"""Reindexing: a second collection has the rows of the first one and another model's vectors."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_flink.common import ConfigError, Rejected
from sage_flink.db import VectorRow, collection, memory
from sage_flink.db.reindex import ReindexCounts, reindex
from sage_flink.db.vectors import pack

DIM = 8
SOURCE = collection("reindex_source", dim=3, store="memory")
TARGET = collection("reindex_target", dim=DIM, store="memory")


class Model:
    """Vectors by the hash of a text and the model's name; it refuses texts with ``poison``."""

    def __init__(self, name: str = "second") -> None:
        self.name, self.texts = name, list[str]()

    def __call__(self, texts: Sequence[str]) -> list[bytes]:
        if any("poison" in text for text in texts):
            raise Rejected("too long")
        self.texts += texts
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> bytes:
        digest = hashlib.sha256(f"{self.name} {text}".encode()).digest()
        return pack([byte - 127.5 for byte in digest[:DIM]])


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    memory.forget(SOURCE.name)
    memory.forget(TARGET.name)


def rows(texts: dict[str, Any]) -> list[VectorRow]:
    return [VectorRow(id_, pack([1.0, 2.0, 3.0]), {"text": t}) for id_, t in texts.items()]


def run(model: Model) -> ReindexCounts:
    return reindex(SOURCE.open(), TARGET.open(), model)


def test_all_rows_have_the_vectors_of_the_second_model() -> None:
    texts = {f"r{n:03}": f"text {n % 50}" for n in range(200)}
    SOURCE.open().upsert(rows(texts))
    model, shown = Model(), list[int]()

    counts = reindex(SOURCE.open(), TARGET.open(), model, on_progress=shown.append)

    assert (counts.embedded, counts.rows, counts.refused) == (200, 200, [])
    found = list(TARGET.open().scan())
    assert {row.id: row.fields["text"] for row in found} == texts
    assert all(row.vector == model.vector(row.fields["text"]) for row in found)
    assert shown == sorted(shown)
    assert shown[-1] == 200


@settings(max_examples=60)
@given(
    before=st.dictionaries(st.text("abé😀", max_size=3), st.text("xy", max_size=2), max_size=40),
    after=st.dictionaries(st.text("abé😀", max_size=3), st.text("xy", max_size=2), max_size=40),
)
def test_the_second_run_embeds_what_changed_alone(
    before: dict[str, str], after: dict[str, str]
) -> None:
    forget()
    before, after = ({f"r{k}": v for k, v in texts.items()} for texts in (before, after))
    SOURCE.open().upsert(rows(before))
    run(Model())
    memory.forget(SOURCE.name)
    SOURCE.open().upsert(rows(after))
    model = Model()

    counts = run(model)

    changed = {id_ for id_, text in after.items() if before.get(id_) != text}
    checked = 1 if before else 0  # one row shows whether the model is the same
    assert (counts.embedded, len(model.texts)) == (len(changed), len(changed) + checked)
    assert counts.unchanged == len(after) - len(changed)
    assert counts.deleted == len(before.keys() - after.keys())
    assert {r.id: r.fields["text"] for r in TARGET.open().scan()} == after


def test_a_text_that_the_model_refuses_is_one_refused_row() -> None:
    SOURCE.open().upsert(rows({f"r{n}": "poison" if n == 3 else f"text {n}" for n in range(9)}))

    counts = run(Model())

    assert counts.refused == [("r3", "too long")]
    assert counts.embedded == 8
    assert "r3" not in {row.id for row in TARGET.open().scan()}


def test_a_changed_text_that_the_model_refuses_leaves_no_earlier_vector() -> None:
    SOURCE.open().upsert(rows({"a": "text", "b": "text"}))
    run(Model())
    SOURCE.open().upsert(rows({"b": "poison"}))

    counts = run(Model())

    assert (counts.refused, counts.deleted) == ([("b", "too long")], 1)
    assert [row.id for row in TARGET.open().scan()] == ["a"]


def test_a_collection_that_was_not_reindexed_loses_no_row() -> None:
    SOURCE.open().upsert(rows({"a": "text"}))
    TARGET.open().upsert([VectorRow("own", pack([1.0] * DIM), {"year": 1})])

    with pytest.raises(ConfigError, match="row 'own' of the second collection has no text"):
        run(Model())

    assert [row.id for row in TARGET.open().scan()] == ["own"]


def test_a_row_without_a_text_is_counted_and_leaves_the_second_collection() -> None:
    SOURCE.open().upsert(rows({"a": "text", "b": "text"}))
    run(Model())
    SOURCE.open().upsert(rows({"b": None}))

    counts = run(Model())

    assert (counts.without_text, counts.deleted, counts.unchanged) == (1, 1, 1)
    assert [row.id for row in TARGET.open().scan()] == ["a"]


def test_a_collection_of_a_third_model_is_refused_and_left_as_it_is() -> None:
    SOURCE.open().upsert(rows({"a": "text"}))
    run(Model())
    before = list(TARGET.open().scan())

    with pytest.raises(ConfigError, match=r"row 'a' .* has a vector of another model"):
        run(Model("third"))

    assert list(TARGET.open().scan()) == before


def test_after_an_interruption_it_goes_on() -> None:
    SOURCE.open().upsert(rows({f"r{n:03}": f"text {n}" for n in range(200)}))

    def interrupt(done: int) -> None:
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(SOURCE.open(), TARGET.open(), Model(), on_progress=interrupt)
    counts = run(Model())

    assert (counts.embedded, counts.unchanged) == (200 - 128, 128)
    assert TARGET.open().count() == 200
