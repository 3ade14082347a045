"""Made-up records: the same at every run and on every target, at the rate that was asked for."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, FailOnce, FileSink
from waiting import wait_until

import sage_connectors
import sage_flink as sage
from sage_connectors import generator
from sage_flink.common import ConfigError, Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import Count, FlinkOptions, Sum, Tumbling
from sage_flink.flow.yaml_form import from_yaml, to_yaml, vocabulary
from sage_flink.testing import ListSink

pytestmark = QUIET
TEMPLATE = {
    "n": "$n",
    "user": {"$choice": ["anna", "ben", "carl"]},
    "order": {"lines": [{"$int": [1, 6]}, "plain", 7], "total": {"$float": [1.0, 2.0]}},
}


def refused_at_7(n, random):
    if n == 7:
        raise ValueError("seven")
    return {"n": n, "draw": random.random()}


def test_the_same_seed_gives_equal_records_and_another_seed_others():
    made = list(generator(50, per_s=10, make=TEMPLATE).records())

    assert made == list(generator(50, per_s=10, make=TEMPLATE).records())
    assert made != list(generator(50, per_s=10, make=TEMPLATE, seed=1).records())
    assert [record.id for record in made[:2]] == ["generator/0/0", "generator/0/1"]
    assert {record.value["user"] for record in made} == {"anna", "ben", "carl"}
    assert {record.value["order"]["lines"][0] for record in made} == set(range(1, 7))
    assert all(1.0 <= record.value["order"]["total"] <= 2.0 for record in made)
    assert made[9].value["order"]["lines"][1:] == ["plain", 7]


def test_more_records_and_another_rate_leave_the_values_as_they_were():
    few, many = (list(generator(n, per_s=n, make=TEMPLATE).records()) for n in (10, 100))

    assert [record.value for record in few] == [record.value for record in many[:10]]


def test_event_time_is_even_or_as_disordered_as_asked():
    even = [record.timestamp_ms for record in generator(5, per_s=4, start_ms=1_000).records()]
    assert even == [1_000, 1_250, 1_500, 1_750, 2_000]

    options = {"out_of_order_s": 2.0, "late_share": 0.2, "late_s": 100.0}
    plain = generator(5_000, per_s=1_000).records()
    mixed = generator(5_000, per_s=1_000, **options).records()
    back = [a.timestamp_ms - b.timestamp_ms for a, b in zip(plain, mixed, strict=True)]
    late = [ms for ms in back if ms > 2_000]
    assert min(back) >= 0
    assert max(ms for ms in back if ms <= 2_000) > 1_900
    assert all(100_000 <= ms <= 102_000 for ms in late)
    assert 900 < len(late) < 1_100


def test_in_process_records_come_at_the_rate_or_without_a_pause():
    seconds = {}
    for paced in (True, False):
        graph = sage.flow.read("in", generator(21, per_s=50, paced=paced)).write("out", ListSink())
        started = time.monotonic()
        outcome = asyncio.run(sage.flow.run(graph))
        seconds[paced] = time.monotonic() - started
        assert len(outcome.written["out"]) == 21

    assert seconds[True] >= 0.4 > seconds[False]


@pytest.mark.parametrize("paced", [True, False])
def test_in_process_an_endless_run_ends_when_it_is_cancelled(paced):
    sink = ListSink()
    graph = sage.flow.read("in", generator(per_s=1_000, paced=paced)).write("out", sink)

    async def run_for_a_while() -> None:
        async with asyncio.timeout(0.5):
            await sage.flow.run(graph)

    with pytest.raises(TimeoutError):
        asyncio.run(run_for_a_while())


def test_what_the_function_raises_is_a_dead_letter_and_the_next_records_come():
    source = generator(10, per_s=1e6, make=refused_at_7)
    outcome = asyncio.run(sage.flow.run(sage.flow.read("in", source).write("out", ListSink())))

    assert [record.value["n"] for record in outcome.written["out"]] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    [failed] = outcome.failed
    assert (failed.id, failed.step) == ("generator/0/7", "in")
    assert failed.reason.startswith("ValueError: seven (test_generator.py:")


def test_a_function_may_return_a_record_with_another_id_and_key():
    def keyed(n, random):
        return Record(f"order-{n}", n, 5, key=b"k")

    records = generator(2, per_s=1, make=keyed).records()

    found = [(record.id, record.timestamp_ms, record.key) for record in records]
    assert found == [("order-0", 5, b"k"), ("order-1", 5, b"k")]


@pytest.mark.parametrize(
    ("arguments", "flaw"),
    [
        ({"per_s": 0}, "per_s must be more than 0"),
        ({"per_s": float("nan")}, "per_s must be more than 0"),
        ({"count": 0}, "count must be 1 or more, or None"),
        ({"count": 1.5}, "count must be 1 or more, or None"),
        ({"late_share": 20}, "late_share must be a share from 0 to 1"),
        ({"out_of_order_s": -1}, "out_of_order_s must be 0 seconds or more"),
        ({"name": ""}, "name must be a name"),
        ({"make": {"user": {"$chose": ["a"]}}}, r"must be \{\"\$choice\".*got \{'\$chose'"),
        ({"make": [{"$choice": []}]}, r"got \{'\$choice': \[\]\}"),
        ({"make": {"n": {"$int": [1]}}}, r"got \{'\$int': \[1\]\}"),
    ],
)
def test_a_wrong_argument_is_named(arguments, flaw):
    with pytest.raises(ConfigError, match=flaw):
        generator(**{"count": 1, "per_s": 1, **arguments})


def test_a_template_has_a_yaml_form(tmp_path):
    words = vocabulary(sage_connectors)
    source = generator(5, per_s=2.0, make=TEMPLATE, late_share=0.5)
    graph = sage.flow.read("in", source).write("out", sage_connectors.files_sink(tmp_path))

    assert from_yaml(to_yaml(graph, words), words) == graph


def windows_of(out: Any, late: Any) -> sage.flow.Graph:
    source = generator(
        3_000, per_s=100, make=TEMPLATE, out_of_order_s=0.5, late_share=0.05, paced=False
    )
    keyed = (
        sage.flow.read("in", source).event_time("time", out_of_order_s=0.5).key_by("user", "user")
    )
    windows = keyed.window("windows", Tumbling(2), {"n": Count(), "sum": Sum("n")})
    return sage.flow.pipeline(
        windows.write("out", out), windows.late("late").write("late-out", late)
    )


@pytest.mark.flink
@pytest.mark.timeout(240)
def test_windows_over_a_generator_are_the_same_on_flink(tmp_path, minicluster):
    here = asyncio.run(sage.flow.run(windows_of(ListSink(), ListSink()))).written
    out, late, failed = (FileSink(str(tmp_path / name)) for name in ("out", "late", "failed"))
    graph = windows_of(out, late).dead_letters_to(failed)

    sage.flow.submit(graph, name="windows", options=FlinkOptions(target="local"))
    wait_until(lambda: out.count() >= len(here["out"]), 120, "all windows")
    wait_until(lambda: late.count() >= len(here["late-out"]), 30, "all late records")

    assert len(here["out"]) > 40
    assert len(here["late-out"]) > 100
    assert {r.id: r.value for r in out.read_records()} == {r.id: r.value for r in here["out"]}
    assert {r.id for r in late.read_records()} == {r.id for r in here["late-out"]}


@pytest.mark.flink
@pytest.mark.timeout(240)
def test_on_flink_a_generator_continues_after_a_restart_with_equal_records(tmp_path, minicluster):
    # The source runs ahead of the workers, and has to be running when the writer fails.
    source = generator(1_800, per_s=60, make=refused_at_7, out_of_order_s=1.0, late_share=0.1)
    checkpoints = tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=300, checkpoints=str(checkpoints))
    failed = FileSink(str(tmp_path / "failed"))
    graph = sage.flow.read("in", source).write("out", out).dead_letters_to(failed)
    options = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        parallelism=2,
        checkpoints=checkpoints.as_uri(),
    )

    started = time.monotonic()
    sage.flow.submit(graph, name="generated", options=options)
    wait_until(lambda: Path(f"{out.path}.failed-once").exists(), 120, "the failure")
    after_s = time.monotonic()
    wait_until(lambda: len({r.id for r in out.read_records()}) >= 1_799, 120, "all records")

    truth = {
        made.id: made
        for number in source.messages.records()
        if number.value != b"7"
        for made in source.format.decoder()(number)
    }
    assert {record.id: record for record in out.read_records()} == truth
    assert after_s - started > 300 / 60  # not faster than the rate
    letters = {(one.id, one.step) for one in map(from_message, failed.read_records())}
    assert letters == {("generator/0/7", "in")}
