"""A part that a flat_map function refuses is one dead letter; the rest of its input goes on."""

import asyncio
from collections import Counter

import msgspec
import pytest
from metrics import Metrics

import sage_flink as sage
from sage_flink.common import Record, decode, encode
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.flow import FlatMap, Refusal
from sage_flink.flow.flink.python_steps import FlatMapStep
from sage_flink.flow.flink.stage import Stage
from sage_flink.flow.functions import Map
from sage_flink.flow.lists import ListSink, ListSource

# Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WORDS = Record("file", ["one", "", "three"], 5, b"k", {"h": b"v"}, "file")


def words(record):
    """Each word in capitals under the id of its place; an empty one is refused."""
    for number, word in enumerate(record.value, start=1):
        part = record.replace(id=f"{record.id}#{number}", value=[word])
        yield part.replace(value=word.upper()) if word else Refusal(part, "an empty word")


def run_locally(function, *records):
    source = sage.flow.read("in", ListSource(records))
    return asyncio.run(sage.flow.run(source.flat_map("words", function).write("out", ListSink())))


def run_stage(*steps):
    """The records, the dead letters and the counter deltas of a stage."""
    stage = Stage(steps, "job", "job")
    stage.open(Metrics())
    records, deltas, failed = [], Counter(), []
    for out in stage.process_element(encode(WORDS), None):
        if isinstance(out, tuple):
            failed.append(from_message(decode(out[1])))
        elif 0x80 <= out[0] <= 0x8F:
            deltas.update(msgspec.msgpack.decode(out))
        else:
            records.append(decode(out))
    for name in stage.passthrough_counters():
        deltas[name] += len(records)
    return records, failed, deltas


def keep(name):
    return FlatMapStep(FlatMap(name, "in", lambda record: [record]))


@pytest.mark.parametrize("behind", [(), (keep("behind"),)], ids=["last", "first"])
def test_a_stage_emits_the_good_parts_and_a_dead_letter_for_each_refused_one(behind):
    records, (letter,), counts = run_stage(FlatMapStep(FlatMap("words", "in", words)), *behind)

    assert [(record.id, record.value) for record in records] == [
        ("file#1", "ONE"),
        ("file#3", "THREE"),
    ]
    assert (letter.step, letter.reason, letter.origin) == ("words", "an empty word", "file")
    assert letter.record() == WORDS.replace(id="file#2", value=[""])
    assert (counts["words.read"], counts["words.emitted"]) == (1, 2)
    assert counts["words.dead_lettered"] == 1


def test_the_in_process_target_makes_the_same_of_it():
    outcome = run_locally(words, WORDS)

    records, (letter,), _ = run_stage(FlatMapStep(FlatMap("words", "in", words)))
    (failed,) = outcome.failed
    assert outcome.written["out"] == records
    assert (failed.record, failed.step, failed.reason) == (
        letter.record(),
        letter.step,
        letter.reason,
    )


def test_a_second_run_gives_the_same_ids():
    first, second = (run_locally(words, WORDS) for _ in range(2))

    assert first == second


def test_a_replay_hands_the_function_the_refused_part_alone():
    (failed,) = run_locally(words, WORDS).failed
    letter = from_message(to_message(failed, "job").replace(id="dead/0/1"))

    again = run_locally(words, letter.record())
    corrected = run_locally(words, letter.record().replace(value=["two"]))

    assert [one.record.id for one in again.failed] == ["file#2#1"]
    assert [(row.id, row.value) for row in corrected.written["out"]] == [("file#2#1", "TWO")]


def test_a_map_may_refuse_its_record():
    outcome = run_locally(Map(lambda record: Refusal(record, "no")), WORDS)

    assert [(one.record, one.reason) for one in outcome.failed] == [(WORDS, "no")]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([Refusal("text", "why")], "a Refusal must hold a Record, got str"),
        ([Refusal(WORDS.replace(value=object()), "why")], "the record cannot be encoded"),
        ([Refusal(WORDS.replace(key="text"), "why")], "the record's key must be bytes"),
        ([Refusal(WORDS.delete_of("d", id="d"), "why")], "returned a delete"),
        (Refusal(WORDS, "why"), "the function returned Refusal; return a list, or yield"),
    ],
)
def test_a_refusal_that_cannot_travel_makes_its_whole_input_a_dead_letter(made, reason):
    outcome = run_locally(lambda record: made, WORDS)

    (failed,) = outcome.failed
    assert failed.record == WORDS
    assert reason in failed.reason
    assert (
        run_stage(FlatMapStep(FlatMap("words", "in", lambda record: made)))[1][0].record() == WORDS
    )
