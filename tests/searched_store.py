"""A store in memory for searches of the gateway."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_flink.common import ConfigError, Rejected, StoreUnavailable
from sage_flink.db import RowFilter
from sage_flink.db.hit_pages import hits_page

#: As a store says where it is.
AT = "at http://127.0.0.1:19530"


@dataclass
class Hit:
    id: str
    score: float
    fields: dict[str, Any]


@dataclass
class MemoryStore:
    """Rows and their vectors; the score is the cosine."""

    rows: dict[str, tuple[list[float], dict[str, Any]]]
    broken: bool = False
    full_text: bool = True
    name: str = ""
    searches: list[int] = field(default_factory=list)

    def search(
        self,
        vector: Sequence[float],
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> list[Hit]:
        if self.broken:
            raise StoreUnavailable("the store is away; try again")
        self.searches.append(top_k)
        hits = [
            Hit(key, sum(a * b for a, b in zip(vector, row, strict=True)), fields)
            for key, (row, fields) in self.rows.items()
            if where is None or where.matches(fields | {"id": key})
        ]
        near = [hit for hit in hits if min_score is None or hit.score >= min_score]
        return page_of(sorted(near, key=lambda hit: -hit.score), top_k, offset, group_by)

    def hybrid_search(
        self,
        vector: Sequence[float],
        text: str,
        top_k: int,
        *,
        where: RowFilter | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> list[Hit]:
        """The rows with the text first, whatever their vectors."""
        if not self.full_text:
            raise ConfigError(f"collection {self.name!r} {AT}: it was made without full_text=True")
        if not text.strip():
            raise Rejected("search: text must not be empty")
        hits = self.search(vector, 50, where=where)
        words = [hit for hit in hits if text in hit.fields["text"]]
        rest = [hit for hit in hits if hit not in words]
        return page_of([*words, *rest], top_k, offset, group_by)

    def close(self) -> None:
        """No resource is open."""


def page_of(hits: list[Any], top_k: int, offset: int, group_by: str) -> list[Any]:
    return hits_page(lambda limit: hits[:limit], top_k, offset=offset, group_by=group_by)
