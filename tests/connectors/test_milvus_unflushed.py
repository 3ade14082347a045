"""Searches of rows that Milvus has not flushed: a filter finds all rows that match."""

import uuid

import numpy as np
import pytest

from sage_flink.db import VectorRow, collection, field

DIM, ROWS, EVERY, BATCH_ROWS = 384, 10_000, 20, 500


@pytest.mark.service
def test_a_filtered_search_of_unflushed_rows_finds_all_that_match() -> None:
    # Of so many rows Milvus makes an index of a growing segment, with 128 clusters.
    chance = np.random.default_rng(1)
    vectors = chance.standard_normal((ROWS, DIM)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [VectorRow(f"r{n:05}", one.tobytes(), {"n": n % EVERY}) for n, one in enumerate(vectors)]
    store = collection(f"conformance_{uuid.uuid4().hex}", dim=DIM).open()
    for at in range(0, ROWS, BATCH_ROWS):
        assert not store.upsert(rows[at : at + BATCH_ROWS])
    assert store.count() == ROWS

    for query in vectors[:20]:
        hits = store.search(query.tolist(), 2_000, where=field("n") == 3)
        nearest = store.search(query.tolist(), 10)

        assert {hit.id for hit in hits} == {f"r{n:05}" for n in range(3, ROWS, EVERY)}
        exact = np.argsort(-(vectors @ query))[:10]
        assert {hit.id for hit in nearest} == {f"r{n:05}" for n in exact}
    store.drop()  # type: ignore[attr-defined]
    store.close()
