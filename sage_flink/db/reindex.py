"""A second collection with the rows of a first one and vectors of another model.

Only what differs is embedded, so it can be run again: once for the bulk, and once more, in seconds,
when nothing writes into the first collection any more. Then an alias can move to the second one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.db.fields import field as field_of
from sage_flink.db.vector_store import RefusedRow, VectorRow, VectorStore
from sage_flink.db.vectors import numbers

#: Vectors of texts, in their order; Rejected where the model does not take one of them.
Embed = Callable[[Sequence[str]], Sequence[bytes]]

EMBED_ROWS, DELETE_ROWS = 64, 1_000
#: The cosine of two vectors of one text by one model; engines differ in the last digits.
SAME_MODEL_MIN = 0.999


@dataclass(slots=True)
class ReindexCounts:
    """Rows of the first collection: embedded now, unchanged since an earlier time, without a text,
    refused by the second one; and rows of the second one that are deleted."""

    embedded: int = 0
    unchanged: int = 0
    without_text: int = 0
    deleted: int = 0
    refused: list[RefusedRow] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows of the first collection were compared."""
        return self.embedded + self.unchanged + self.without_text + len(self.refused)


def reindex(
    source: VectorStore,
    target: VectorStore,
    embed: Embed,
    *,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> ReindexCounts:
    """Make ``target`` hold the rows of ``source``, with new vectors of their field ``text``.

    Both are read in the order of their ids. A row with equal fields in both is left as it is.
    ``on_progress`` gets the number of rows compared so far. It may end at any moment: the next
    call continues. What is written into ``source`` during a call is for the next one.

    Raises:
        ConfigError: the vectors of ``target`` are of another model, or its rows not of a reindex.
        StoreUnavailable: a server does not answer.
    """
    _require_same_model(target, embed)
    counts = ReindexCounts()
    changed: list[VectorRow] = []
    gone: list[str] = []
    for row, old in _pairs(source.scan(vectors=False), target.scan(vectors=False)):
        if row is None:
            gone += [old.id] if old is not None else []
        elif not isinstance(row.fields.get("text"), str):
            counts.without_text += 1
            gone += [old.id] if old is not None else []
        elif old is not None and old.fields == row.fields:
            counts.unchanged += 1
        else:
            changed.append(row)
        if len(changed) == EMBED_ROWS:
            gone += _write(target, changed, embed, counts)
        if len(gone) >= DELETE_ROWS:
            _delete(target, gone, counts)
        on_progress(counts.rows)
    gone += _write(target, changed, embed, counts)
    _delete(target, gone, counts)
    on_progress(counts.rows)
    return counts


def _pairs(
    first: Iterator[VectorRow], second: Iterator[VectorRow]
) -> Iterator[tuple[VectorRow | None, VectorRow | None]]:
    """The rows of two scans side by side, by id; None where one has no such row."""
    one, two = next(first, None), next(second, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one.id < two.id):
            yield one, None
            one = next(first, None)
        elif one is None or two.id < one.id:
            yield None, two
            two = next(second, None)
        else:
            yield one, two
            one, two = next(first, None), next(second, None)


def _write(
    target: VectorStore, changed: list[VectorRow], embed: Embed, counts: ReindexCounts
) -> list[str]:
    """Embed and store the rows; the ids of those refused, whose earlier vectors are out of date."""
    unfit: list[RefusedRow] = []
    rows = list(_embed_rows(changed, embed, unfit))
    unfit += target.upsert(rows) if rows else []
    counts.refused += unfit
    counts.embedded += len(changed) - len(unfit)
    changed.clear()
    return [row.id for row in unfit]


def _embed_rows(
    rows: Sequence[VectorRow], embed: Embed, refused: list[RefusedRow]
) -> Iterator[VectorRow]:
    """The rows with their vectors; a batch with a text that the model refuses is halved."""
    if not rows:
        return
    try:
        vectors = embed([row.fields["text"] for row in rows])
    except Rejected as error:
        if len(rows) == 1:
            refused.append(RefusedRow(rows[0].id, str(error)))
            return
        half = len(rows) // 2
        yield from _embed_rows(rows[:half], embed, refused)
        yield from _embed_rows(rows[half:], embed, refused)
        return
    for row, vector in zip(rows, vectors, strict=True):
        yield VectorRow(row.id, vector, row.fields)


def _delete(target: VectorStore, gone: list[str], counts: ReindexCounts) -> None:
    if gone:
        counts.deleted += target.delete_where(field_of("id").in_(gone))
        gone.clear()


def _require_same_model(target: VectorStore, embed: Embed) -> None:
    stored = next(target.scan(), None)
    if stored is None:
        return
    if not isinstance(text := stored.fields.get("text"), str):
        raise ConfigError(
            f"reindex: row {stored.id!r} of the second collection has no text, so it was not "
            "made by reindexing; use a new collection"
        )
    [vector] = embed([text])
    if _cosine(numbers(vector), numbers(stored.vector)) < SAME_MODEL_MIN:
        raise ConfigError(
            f"reindex: row {stored.id!r} of the second collection has a vector of another model; "
            "use a new collection"
        )


def _cosine(one: Sequence[float], two: Sequence[float]) -> float:
    if len(one) != len(two):
        return 0.0
    product = sum(a * b for a, b in zip(one, two, strict=True))
    size = (sum(a * a for a in one) * sum(b * b for b in two)) ** 0.5
    return product / size if size else 0.0
