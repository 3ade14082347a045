"""Collections with full-text search, in memory and on milvus-lite."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sage_flink.db import Collection, collection
from sage_flink.db import memory as vectors_in_memory

DIM = 8
#: The local stack's Milvus 2.3 has no BM25; milvus-lite is started by the tests themselves.
TEXT_STORES = [
    pytest.param("memory", id="memory"),
    pytest.param("milvus", id="milvus-lite", marks=pytest.mark.processes),
]


@contextmanager
def text_collection(request: pytest.FixtureRequest) -> Iterator[Collection]:
    """A collection with a name of its own in the store of the parameter; dropped in the end."""
    on_server = request.param != "memory"
    url = request.getfixturevalue("milvus_lite") if on_server else ""
    name = f"conformance_{uuid.uuid4().hex}"
    yield collection(name, dim=DIM, store=request.param, url=url, full_text=True)
    vectors_in_memory.forget(name)
    if on_server:
        collection(name, dim=DIM, url=url).open().drop()  # type: ignore[attr-defined]
