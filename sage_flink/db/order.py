"""A batch of rows and removals as few calls to a store, in an order that ends the same. Pure.

A removal touches the rows of its document alone, so it may wait until the other documents' rows
that came after it are stored; not so for rows of its own document. Two removals of one document
with nothing of it between them keep what both keep: one version, or none.

>>> from sage_flink.common.removal import Removal
>>> v1, v2 = (Record(v, {"doc": "a", "version": v}) for v in ("v1", "v2"))
>>> other, gone = Record("b", {"doc": "b"}), Record("r", Removal("a", "v1").value())
>>> [([r.id for r in part.rows], part.removals) for part in parts([v1, gone, other])]
[(['v1', 'b'], {'a': 'v1'})]
>>> [([r.id for r in part.rows], part.removals) for part in parts([v1, gone, v2])]
[(['v1'], {'a': 'v1'}), (['v2'], {})]
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sage_flink.common.records import Record
from sage_flink.common.removal import removal


@dataclass(slots=True)
class Part:
    """Rows to be stored first, then the removals: the version kept by document."""

    rows: list[Record] = field(default_factory=list)
    removals: dict[str, str] = field(default_factory=dict)


def parts(records: Iterable[Record]) -> Iterator[Part]:
    """The parts of a batch, one after the other the same as its records one after the other."""
    part = Part()
    for record in records:
        if found := removal(record):
            keep = part.removals.setdefault(found.doc, found.keep)
            part.removals[found.doc] = found.keep if keep == found.keep else ""
            continue
        if part.removals and _doc(record) in part.removals:
            yield part
            part = Part()
        part.rows.append(record)
    yield part


def _doc(record: Record) -> str | None:
    doc = record.value.get("doc") if isinstance(record.value, Mapping) else None
    return doc if isinstance(doc, str) else None
