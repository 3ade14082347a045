"""Collections without rows, for one test each.

To make one takes Milvus four seconds, to empty it a tenth of that: a collection of a server is
shared by the tests of this process, which drops it at its end.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sage_flink.db import Collection, collection, field, memory

SHARED: dict[tuple[str, int], Collection] = {}


@contextmanager
def empty_collection(store: str, *, dim: int) -> Iterator[Collection]:
    """A collection in which each row is written inside the block."""
    if store == "memory":
        with new_collection(store, dim=dim) as spec:
            yield spec
        return
    if (store, dim) not in SHARED:
        SHARED[store, dim] = _named(store, dim)
    spec = SHARED[store, dim]
    yield spec
    opened = spec.open()
    opened.delete_where(field("id").exists())
    left = opened.count()
    opened.close()
    assert left == 0, f"{left} rows are left in {spec.name}"


@contextmanager
def new_collection(store: str, *, dim: int) -> Iterator[Collection]:
    """A collection that does not exist yet, dropped after the block."""
    spec = _named(store, dim)
    yield spec
    memory.forget(spec.name)
    if store != "memory":
        spec.open().drop()  # type: ignore[attr-defined]


def drop_shared() -> None:
    """Drop the collections that tests have shared."""
    while SHARED:
        _, spec = SHARED.popitem()
        spec.open().drop()  # type: ignore[attr-defined]


def _named(store: str, dim: int) -> Collection:
    return collection(f"conformance_{uuid.uuid4().hex}", dim=dim, store=store)
