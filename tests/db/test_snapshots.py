"""Snapshots of random histories with crashes and lost notifications, against the stream's truth."""

import random
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_histories import (
    ACTIONS,
    FIRST_MS,
    STEP_MS,
    WriteHistory,
    random_stream,
    rows_of,
    truth,
)

from sage_flink.db import collection, memory
from sage_flink.db.snapshot_reads import SnapshotReads

pytestmark = pytest.mark.slow

DIM = 2


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), actions=st.integers(1, 80))
def test_a_reader_always_sees_whole_documents_of_the_newest_commit(seed: int, actions: int) -> None:
    chance = random.Random(seed)  # Hypothesis's own draws are seldom as varied
    spec = collection(f"history_{uuid.uuid4().hex}", dim=DIM, store="memory", snapshots=True)
    history = WriteHistory(spec, random_stream(chance, 25, DIM))
    history.start()
    try:
        for _ in range(actions):
            history.act(chance, ACTIONS)
            opened = spec.open()
            assert isinstance(opened, SnapshotReads)
            assert rows_of(opened) == history.expected()
        for checkpoint in history.commits:
            past = opened.as_of(FIRST_MS + STEP_MS * checkpoint)
            assert rows_of(past) == history.expected(checkpoint)
    finally:
        memory.forget(spec.name)


def test_the_truth_has_whole_documents_only() -> None:
    stream = random_stream(random.Random(0), 40, DIM)

    for position in range(len(stream)):
        rows = truth(stream[:position]).values()
        labels = {(row["doc"], row["version"]) for row in rows if "doc" in row}
        assert len(labels) == len({doc for doc, _ in labels})
