"""Similarity joins by DuckDB and numpy: every pair of an interval compared, nothing left out."""

import random
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from join_truth import Result, interval_join, side

from sage_flink.common import Record

DIM = 16


def with_vectors(records: Sequence[Record], seed: int) -> tuple[Record, ...]:
    """The records with vectors around a few directions, of any length, in both forms."""
    rand = random.Random(seed)
    directions = [[random.Random(n).gauss(0, 1) for _ in range(DIM)] for n in range(12)]
    made = []
    for record in records:
        length = rand.choice((0.01, 1, 30))
        numbers = [length * (n + rand.gauss(0, 0.3)) for n in rand.choice(directions)]
        packed = struct.pack(f"<{DIM}f", *numbers)
        vector: Any = packed if rand.random() < 0.5 else list(struct.unpack(f"<{DIM}f", packed))
        made.append(record.replace(value={**record.value, "vector": vector}))
    return tuple(made)


def sides(count: int, seed: int) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Both inputs of a join, a part of them late."""
    left = side("l", count, late=0.2, seed=seed, span_ms=count * 25)
    right = side("r", count, late=0.2, seed=seed + 1, span_ms=count * 25)
    return with_vectors(left, seed), with_vectors(right, seed + 1)


def similarities(left: Sequence[Record], right: Sequence[Record]) -> np.ndarray[Any, Any]:
    """The cosine similarity of each left record (row) with each right one (column)."""
    return unit_rows(left) @ unit_rows(right).T


def similarity_join(
    left: Sequence[Record],
    right: Sequence[Record],
    before_ms: int,
    after_ms: int,
    how: str,
    threshold: float,
) -> tuple[list[Result], set[str]]:
    """The results of a join of the records that are not late, and the ids of those that are."""
    pairs, late = interval_join(left, right, before_ms, after_ms, "inner")
    both = similarities(left, right)
    rows = {record.id: n for n, record in enumerate(left)}
    columns = {record.id: n for n, record in enumerate(right)}
    found = [both[rows[one[0] or ""], columns[one[1] or ""]] for one in pairs]
    assert all(abs(cosine - threshold) > 2e-6 for cosine in found)  # rounding decides on none
    near = [one for one, cosine in zip(pairs, found, strict=True) if cosine >= threshold]
    alone: list[Result] = []
    for place, records in ((0, left), (1, right)):
        if how == "full" or (how == "left" and place == 0):
            met = {one[place] for one in near}
            for record in records:
                if record.id not in met | late:
                    ids = (record.id, None) if place == 0 else (None, record.id)
                    key = record.value["deep"]["u"].encode()
                    alone.append((*ids, record.timestamp_ms, key))
    return near + alone, late


def unit_rows(records: Sequence[Record]) -> np.ndarray[Any, Any]:
    """The vectors of the records, each a row of length 1."""
    rows = [
        np.frombuffer(vector, "<f4").astype(float) if isinstance(vector, bytes) else vector
        for vector in (record.value["vector"] for record in records)
    ]
    vectors = np.array(rows, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
