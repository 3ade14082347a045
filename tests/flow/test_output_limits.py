"""A function that makes too much of one record fails for that record alone, on both targets."""

import asyncio
import itertools
from collections.abc import Iterator

import pytest

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import steps
from sage_flink.flow.lists import ListSink, ListSource


def endless(record: Record) -> Iterator[int]:
    yield from itertools.count()


def test_a_function_that_yields_without_end_is_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "OUTPUTS_MAX", 1_000)
    graph = sage.flow.read("in", ListSource((Record("r", 1),))).flat_map("f", endless)

    outcome = asyncio.run(sage.flow.run(graph.write("out", ListSink())))

    (failed,) = outcome.failed
    assert failed.reason == "the function made more than 1000 records of one; split it before"


@pytest.mark.parametrize("bytes_max", [0, 1 << 32])
def test_a_batch_has_a_size_that_can_be_sent(bytes_max: int) -> None:
    stream = sage.flow.read("in", ListSource(()))

    with pytest.raises(sage.common.PipelineError, match="step 'b': bytes_max must be at"):
        stream.batch("b", items_max=1, bytes_max=bytes_max, linger_s=1)
