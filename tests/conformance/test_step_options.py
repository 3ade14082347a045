"""Options of single steps on Flink: each step has its own number of subtasks."""

from dataclasses import dataclass

import pytest
from minicluster import QUIET, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_connectors import generator
from sage_flink.common import Record
from sage_flink.flow import FlinkOptions, OpenContext, StepOptions

pytestmark = [*QUIET, pytest.mark.flink, pytest.mark.timeout(240)]

COUNT = 300


@dataclass
class Place:
    """The value with the number of subtasks of this step."""

    name: str

    def open(self, context: OpenContext) -> None:
        self.place = context.parallelism

    def __call__(self, record: Record) -> dict:
        return record.value | {self.name: self.place}


def test_each_step_has_its_own_number_of_subtasks(tmp_path, minicluster):
    out, failed = (FileSink(str(tmp_path / name)) for name in ("out", "failed"))
    source = generator(COUNT, per_s=300, make=lambda n, random: {"n": n})
    graph = (
        sage.flow.read("in", source)
        .map("first", Place("first"))
        .map("second", Place("second"))
        .map("third", Place("third"))
        .write("out", out)
        .dead_letters_to(failed)
    )
    options = FlinkOptions(
        target="local",
        parallelism=2,
        checkpoint_interval_s=0.5,
        steps={
            "second": StepOptions(parallelism=3, slot_sharing_group="own"),
            "out": StepOptions(parallelism=1),
        },
    )

    sage.flow.submit(graph, name="places", options=options)
    wait_until(lambda: out.count() >= COUNT, 90, "all records")

    made = [record.value for record in out.read_records()]
    assert sorted(value["n"] for value in made) == list(range(COUNT))
    places = {(value["first"], value["second"], value["third"]) for value in made}
    assert places == {(2, 3, 2)}
    assert failed.count() == 0
