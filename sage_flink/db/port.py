"""The vector store: two verbs, and those that both adapters wanted as well.

Vectors to be stored travel as little-endian float32 bytes, as the model pool answers them; a
vector to be searched for is a sequence of numbers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from sage_flink.common.removal import Removal


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``vector`` is ``dim`` little-endian float32; ``fields`` is what JSON can say.

    The fields ``doc`` and ``version`` are texts where they are there: by them rows are deleted.
    """

    id: str
    vector: bytes
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A row found: ``score`` is the cosine similarity, -1 to 1, higher is nearer."""

    id: str
    score: float
    fields: dict[str, Any] = field(default_factory=dict)


class RefusedRow(NamedTuple):
    """The id of a row that the store refused for good, and why."""

    id: str
    reason: str


class VectorStore(Protocol):
    """An open collection. One thread at a time."""

    def upsert(self, rows: Sequence[Row]) -> Sequence[RefusedRow]:
        """Store the rows, one per id, the newest of a batch and of the store; return once stored.

        The rows refused come back, all others are stored. A row is refused when its id or vector
        does not fit the collection, or its fields cannot be said in the store's format.

        Raises:
            StoreUnavailable: nothing is known to be stored; the same call may succeed later.
        """

    def delete(self, removals: Sequence[Removal]) -> None:
        """Remove the rows of each document but those of the version kept; return once removed.

        A row is of a document by its field ``doc``, of a version by its field ``version``; one
        without a version is of none that can be kept. Sees all writes acknowledged before the
        call. Names are names: nothing in them is an expression.

        Raises:
            StoreUnavailable: some rows may be removed; the same call may succeed later.
        """

    def search(self, vector: Sequence[float], top_k: int) -> list[Hit]:
        """The ``top_k`` nearest rows, nearest first; fewer when the collection has fewer.

        Answers from what is searchable now: a row just written may be missing for a moment (the
        adapter says how long).

        Raises:
            Rejected: the vector has not ``dim`` finite numbers, or ``top_k`` is not 1 to 16384.
            StoreUnavailable: no answer; the same call may succeed later.
        """

    def count(self, ids: Collection[str] | None = None) -> int:
        """How many rows there are, or how many of ``ids``.

        Counts all writes acknowledged before the call.
        """

    def close(self) -> None:
        """Let go of the store. Nothing is pending."""
