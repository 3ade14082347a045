"""The write step waits without limit while its sink is unavailable, and logs it."""

import asyncio
import logging

import pytest
from metrics import Metrics

import sage_flink as sage
from sage_flink.common import NotFound, Record, StoreUnavailable
from sage_flink.common.records import encode_many
from sage_flink.flow.lists import ListSource
from sage_flink.flow.ports import BatchLimits, Refusal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Beam's, of its own age


class UnavailableSink:
    """A sink whose store is unavailable for the first ``times`` writes, or openings."""

    batch = BatchLimits()

    def __init__(self, times, opening=False):
        self.left, self.opening, self.written = times, opening, []

    def writer(self):
        self.fail_if(self.opening)
        return self

    def write(self, records):
        self.fail_if(not self.opening)
        self.written.append(list(records))
        return [Refusal(r, "bad") for r in records if r.value == "bad"]

    def fail_if(self, applies):
        if applies and self.left:
            self.left -= 1
            raise StoreUnavailable("store at http://x: refused; `sage ps` tells whether it runs")

    def close(self):
        """No resource is open."""


def open_step(sink, slept):
    from sage_flink.flow.flink.write_step import WriteStep

    step, counters = WriteStep("vectors", sink, sleep=slept.append), Metrics()
    step.open(counters, "job")
    return step, counters


BATCH = [Record("a", 1), Record("b", "bad"), Record("c", 3)]


@pytest.mark.parametrize("opening", [False, True])
def test_a_batch_waits_for_an_unavailable_store_and_is_written_once(opening, caplog):
    slept, sink = [], UnavailableSink(times=1000, opening=opening)
    step, counters = open_step(sink, slept)

    with caplog.at_level(logging.WARNING):
        failed = list(step.outcomes(encode_many(BATCH)))

    assert sink.written == [BATCH]
    assert [f.id for f in failed] == ["b"]
    assert len(slept) == 1000
    assert max(slept) <= 5
    assert caplog.messages == [
        "step 'vectors' waits, 0 s so far: store at http://x: refused; "
        "`sage ps` tells whether it runs"
    ]
    assert counters["store_away_ms"].value > 0
    assert step.emitted == 2


def test_an_available_store_counts_no_wait():
    step, counters = open_step(UnavailableSink(times=0), [])

    list(step.outcomes(encode_many(BATCH)))

    assert counters["store_away_ms"].value == 0


class RaisingSink:
    """A sink whose client raises an error of its own at a batch with a bad value."""

    batch = BatchLimits()

    def __init__(self):
        self.rows = {}

    def writer(self):
        return self

    def write(self, records):
        if any(record.value == "bad" for record in records):
            raise ValueError("no such value")
        self.rows.update((record.id, record.value) for record in records)
        return []

    def close(self):
        """No resource is open."""


def test_a_record_that_makes_the_writer_raise_is_a_dead_letter_and_the_others_are_written():
    sink = RaisingSink()
    step, _ = open_step(sink, [])

    (failed,) = step.outcomes(encode_many(BATCH))

    assert (failed.id, failed.reason) == ("b", "the writer raised ValueError: no such value")
    assert sink.rows == {"a": 1, "c": 3}
    assert step.emitted == 2


def test_the_in_process_target_isolates_such_a_record_too():
    sink = RaisingSink()
    source = sage.flow.read("in", ListSource(tuple(BATCH)))

    outcome = asyncio.run(sage.flow.run(source.write("out", sink)))

    assert [failed.id for failed in outcome.failed] == ["b"]
    assert sink.rows == {"a": 1, "c": 3}


def test_a_fault_of_the_store_is_raised_and_no_record_is_blamed():
    class Gone(RaisingSink):
        def write(self, records):
            raise NotFound("the collection was dropped")

    step, _ = open_step(Gone(), [])

    with pytest.raises(NotFound):
        list(step.outcomes(encode_many(BATCH)))


def test_a_dead_letter_that_its_sink_refuses_is_written_without_its_value():
    from sage_flink.flow.flink.write_step import DeadLetterWriteStep

    sink = RaisingSink()
    step = DeadLetterWriteStep("dead-letters", sink)
    step.open(Metrics(), "job")

    assert list(step.outcomes(encode_many([BATCH[1]]))) == []

    assert sink.rows == {
        "b": b"the dead letter could not be written with its value: "
        b"the writer raised ValueError: no such value"
    }
