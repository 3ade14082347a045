"""A batch of upserts and deletes as few calls to a store, equal to applying them in order.

A delete touches the rows of its document alone, so it may wait until later rows of other documents
are stored, but not until later rows of its own document are. Two deletes of one document without a
row of it between them keep what both keep: one version, or no row.

>>> v1, v2 = (Record(v, {"doc": "a", "version": v}) for v in ("v1", "v2"))
>>> other, delete = Record("b", {"doc": "b"}), v1.delete_of("a", version="v1", id="d")
>>> [([r.id for r in group.upserts], group.deletes) for group in write_groups([v1, delete, other])]
[(['v1', 'b'], {'a': 'v1'})]
>>> [([r.id for r in group.upserts], group.deletes) for group in write_groups([v1, delete, v2])]
[(['v1'], {'a': 'v1'}), (['v2'], {})]
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sage_flink.common.records import Record


@dataclass(slots=True)
class WriteGroup:
    """Upserts to store first, then the deletes: by document, the version that is kept."""

    upserts: list[Record] = field(default_factory=list)
    deletes: dict[str, str] = field(default_factory=dict)


def write_groups(records: Iterable[Record]) -> Iterator[WriteGroup]:
    """The groups of a batch; applied one after the other they equal its records in order."""
    group = WriteGroup()
    for record in records:
        if record.kind == "delete":
            version = group.deletes.setdefault(record.document, record.version)
            group.deletes[record.document] = record.version if version == record.version else ""
            continue
        if group.deletes and _document(record) in group.deletes:
            yield group
            group = WriteGroup()
        group.upserts.append(record)
    yield group


def _document(record: Record) -> str | None:
    document = record.value.get("doc") if isinstance(record.value, Mapping) else None
    return document if isinstance(document, str) else None
