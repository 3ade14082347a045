"""What Milvus itself refuses, when nothing before it does."""

import uuid

import pytest

from sage_flink.db import Row, collection
from sage_flink.db.vectors import packed


@pytest.mark.service
def test_rows_that_the_server_refuses_are_found_and_the_others_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sage_connectors.milvus import MilvusStore

    monkeypatch.setattr(MilvusStore, "_flaw", lambda self, row: "")
    store = MilvusStore(collection(f"conformance_{uuid.uuid4().hex}", dim=2))
    good = packed([1.0, 2.0])
    rows = [Row(f"r{n}", good, {"text": "x" * (70_000 if n == 7 else 10)}) for n in range(100)]
    rows += [Row("i" * 600, good), Row("nan", packed([float("nan"), 1.0]))]

    refused = {row.id: row.reason for row in store.upsert(rows)}

    assert refused.keys() == {"r7", "i" * 600, "nan"}
    assert "exceeds max length" in refused["r7"]
    assert store.count() == 99
    store.drop()
    store.close()
