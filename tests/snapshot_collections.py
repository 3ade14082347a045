"""Collections with snapshots in memory, on Milvus and on milvus-lite, without rows at first."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sage_flink.db import Collection, collection, field, memory

DIM = 8
SNAPSHOT_STORES = [
    pytest.param("memory", id="memory"),
    pytest.param("milvus", id="milvus", marks=pytest.mark.service),
    pytest.param("milvus-lite", id="milvus-lite", marks=pytest.mark.processes),
]
#: On a server tests share a collection by its address: to make one takes seconds.
_SHARED: dict[str, Collection] = {}


@contextmanager
def snapshot_collection(request: pytest.FixtureRequest) -> Iterator[Collection]:
    """A collection of the parameter's store, without rows and snapshots."""
    store = "memory" if request.param == "memory" else "milvus"
    url = request.getfixturevalue("milvus_lite") if request.param == "milvus-lite" else ""
    name = f"conformance_{uuid.uuid4().hex}"
    spec = collection(name, dim=DIM, store=store, url=url, snapshots=True)
    if store != "memory":
        spec = _SHARED.setdefault(f"{request.param} {url}", spec)
    yield spec
    memory.forget(name)
    if store != "memory":
        rows = spec._connect(create=True)
        rows.delete_where(field("id").exists())
        assert rows.count() == 0
        rows.close()


def drop_snapshot_collections() -> None:
    """Drop the collections that tests have shared."""
    while _SHARED:
        _, spec = _SHARED.popitem()
        spec.open().drop()  # type: ignore[attr-defined]
