"""Event time, keys, windows and duplicates: what an author writes, what becomes of a record."""

import asyncio
from typing import Any

import pytest

import sage_flink as sage
from sage_connectors import Fields, Json, Text
from sage_flink.common import PipelineError, Record
from sage_flink.flow import (
    Collect,
    Count,
    Late,
    Mean,
    Quantile,
    Session,
    Sliding,
    Stream,
    Sum,
    Top,
    Tumbling,
    check,
    explain,
    from_yaml,
    to_yaml,
    vocabulary,
)
from sage_flink.flow.flink.native_functions import has_native_decoder
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.operators import DropDeletes

DAY_MS = 1_700_000_000_000


def event(number: int, ms: int, **value: Any) -> Record:
    id_ = f"t/0/{number}"
    return Record(id_, value, DAY_MS + ms, origin=id_)


def stream(*records: Record) -> Stream:
    return sage.flow.read("in", ListSource(records))


def timed(*records: Record, out_of_order_s: float = 0.1) -> Stream:
    return stream(*records).event_time("time", out_of_order_s=out_of_order_s)


def run(*branches: Any) -> Any:
    return asyncio.run(sage.flow.run(sage.flow.pipeline(*branches)))


def test_each_key_has_its_own_windows() -> None:
    records = [event(n, n * 400, user="ab"[n % 2], price=n) for n in range(6)]
    windows = (
        timed(*records)
        .key_by("by-user", "user")
        .window("totals", Tumbling(1), {"total": Sum("price"), "prices": Collect("price")})
    )

    written = run(windows.write("out", ListSink())).written["out"]

    start = DAY_MS
    assert [(r.id, r.value) for r in written] == [
        (
            f"totals/{start + at}/{key}",
            {"key": key, "start_ms": start + at, "end_ms": start + at + 1000, **rest},
        )
        for at, key, rest in (
            (0, "a", {"total": 2, "prices": [0, 2]}),
            (0, "b", {"total": 1, "prices": [1]}),
            (1000, "a", {"total": 4, "prices": [4]}),
            (1000, "b", {"total": 3, "prices": [3]}),
            (2000, "b", {"total": 5, "prices": [5]}),
        )
    ]
    assert [r.timestamp_ms for r in written[:1]] == [start + 999]
    assert written[0].key == b"a"


@pytest.mark.parametrize(
    ("late", "ends"),
    [("dead_letter", {"failed"}), ("drop", set()), ("read", {"late-out"})],
)
def test_a_late_record_goes_where_the_author_says(late: Any, ends: set[str]) -> None:
    records = [event(0, 0), event(1, 5_000), event(2, 10)]
    keyed = timed(*records).key_by("all", lambda record: "all")
    windows = keyed.window("n", Tumbling(1), late="drop" if late == "drop" else "dead_letter")
    branches = [windows.write("out", ListSink())]
    if late == "read":
        branches.append(windows.late("late").write("late-out", ListSink()))

    outcome = run(*branches)

    found = {name for name in ("late-out",) if outcome.written.get(name)}
    found |= {"failed"} if outcome.failed else set()
    assert found == ends
    assert [r.value["count"] for r in outcome.written["out"]] == [1, 1]


def test_a_record_within_the_lateness_updates_its_window_under_the_same_id() -> None:
    records = [event(0, 0), event(1, 5_000), event(2, 10)]
    keyed = timed(*records).key_by("all", lambda record: "all")
    windows = keyed.window("n", Tumbling(1), lateness_s=10)

    outcome = run(windows.write("out", ListSink()))

    first, update, last = outcome.written["out"]
    assert first.id == update.id != last.id
    assert [r.value["count"] for r in (first, update, last)] == [1, 2, 1]
    assert outcome.failed == []


def test_watermarks_wait_for_calls_and_for_the_slowest_partition() -> None:
    slow = [Record(f"t/1/{n}", {"k": "a"}, DAY_MS + n * 100, origin=f"t/1/{n}") for n in range(9)]
    fast = [Record(f"t/0/{n}", {"k": "a"}, DAY_MS + n * 900, origin=f"t/0/{n}") for n in range(9)]
    mixed = [record for pair in zip(fast, slow, strict=True) for record in pair]
    called = (
        timed(*mixed)
        .key_by("key", "k")
        .call("ask", sage.completion(model="m", prompt="k"), capacity=4, timeout_s=5)
    )
    windows = called.window("n", Tumbling(0.5))

    outcome = asyncio.run(
        sage.flow.run(
            sage.flow.pipeline(windows.write("out", ListSink())), pool=sage.inference.EchoPool()
        )
    )

    assert outcome.failed == []
    assert sum(r.value["count"] for r in outcome.written["out"]) == len(mixed)


def test_of_records_with_one_id_or_key_the_first_passes() -> None:
    records = [event(1, 0, n=1), event(1, 1, n=2), event(2, 2, n=3).replace(key=b"k")]
    more = [event(3, 3, n=4).replace(key=b"k")]

    def kept(by: Any) -> list[int]:
        branch = stream(*records, *more).deduplicate("first", within_s=60, by=by)
        return [r.value["n"] for r in run(branch.write("out", ListSink())).written["out"]]

    assert kept("id") == [1, 3, 4]
    assert kept("key") == [1, 3]


@pytest.mark.parametrize(
    ("build", "flaw"),
    [
        (lambda s: s.window("w", Tumbling(1)), "needs event time"),
        (lambda s: s.event_time("t", out_of_order_s=-1), "0 or more seconds"),
        (lambda s: s.event_time("t", out_of_order_s=1, unit="min"), "one of s, ms, us, ns"),
        (lambda s: s.event_time("t", out_of_order_s=1, field="a..b"), "the path of a field"),
        (lambda s: s.key_by("k", ""), "the path of a field"),
        (lambda s: s.window("w", "1 s"), "Tumbling"),
        (lambda s: s.window("w", Tumbling(0)), "0.001 or more"),
        (lambda s: s.window("w", Sliding(1, 2)), "at most size_s"),
        (lambda s: s.window("w", Session(1), lateness_s=1), "0 for sessions"),
        (lambda s: s.window("w", Tumbling(1), {}), "a mapping such as"),
        (lambda s: s.window("w", Tumbling(1), {"key": Count()}), "a name other than"),
        (lambda s: s.window("w", Tumbling(1), {"n": len}), "an aggregate such as"),
        (lambda s: s.window("w", Tumbling(1), {"q": Quantile("v", 2)}), "from 0 to 1"),
        (lambda s: s.window("w", Tumbling(1), {"t": Top("v", 0)}), "at least 1"),
        (lambda s: s.late("l"), "only a window step"),
        (lambda s: s.deduplicate("d", within_s=0), "0.001 or more"),
        (lambda s: s.deduplicate("d", within_s=1, by="value"), "'id' or 'key'"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_written(build: Any, flaw: str) -> None:
    with pytest.raises(PipelineError, match=flaw):
        check(build(stream()).write("out", ListSink()), "local")


def test_late_records_alone_are_no_output() -> None:
    windows = timed().key_by("k", "user").window("w", Tumbling(1))

    with pytest.raises(PipelineError, match="'w': nothing reads its output"):
        check(windows.late("late").write("out", ListSink()), "local")


@pytest.mark.parametrize("verb", ["window", "deduplicate"])
def test_deletes_do_not_reach_a_step_that_exchanges_records_by_key(verb: str) -> None:
    deletes = timed(Record("d", None, DAY_MS, kind="delete", document="x"))

    def step(before: Stream) -> Stream:
        if verb == "window":
            return before.window("w", Tumbling(1))
        return before.deduplicate("w", within_s=1)

    with pytest.raises(PipelineError, match="'w': takes no deletes"):
        check(step(deletes).write("out", ListSink()), "local")
    kept = deletes.flat_map("upserts", DropDeletes())
    check(step(kept).write("out", ListSink()), "local")


YAML = """
steps:
- read: in
  from: {list_source: {rows: []}}
- event_time: time
  input: in
  out_of_order_s: 5.0
  field: at
  unit: s
- key_by: by-user
  input: time
  field: user.id
- deduplicate: once
  input: by-user
  within_s: 60.0
- window: totals
  input: once
  windows: {sliding: {size_s: 60.0, every_s: 10.0}}
  aggregates:
    n: {count: {}}
    price: {mean: {field: price}}
    often: {top: {field: word, k: 3}}
  lateness_s: 2.0
- late: late
  input: totals
- write: out
  input: totals
  into: {list_sink: {}}
- write: late-out
  input: late
  into: {list_sink: {}}
"""


def test_the_yaml_form_says_all_of_it() -> None:
    from sage_flink.flow import lists

    words = {"list_source": lists.ListSource, "list_sink": lists.ListSink, **vocabulary()}
    graph = from_yaml(YAML, words)

    window = graph.by_name["totals"]
    assert window.windows == Sliding(60.0, 10.0)  # type: ignore[union-attr]
    assert window.aggregates == {  # type: ignore[union-attr]
        "n": Count(),
        "price": Mean("price"),
        "often": Top("word", 3),
    }
    assert graph.by_name["late"] == Late("late", "totals")
    assert from_yaml(to_yaml(graph, words), words) == graph
    assert "Sliding(size_s=60.0, every_s=10.0); n=Count(), price=Mean(field='price')" in explain(
        graph
    )
    assert "at in s; 5 s out of order, idle after 60 s" in explain(graph)


@pytest.mark.parametrize(
    ("was", "becomes", "flaw"),
    [
        ("{sliding: {size_s: 60.0, every_s: 10.0}}", "{hopping: {}}", "windows must be one of"),
        ("{mean: {field: price}}", "{average: {field: price}}", "aggregates: price must be one of"),
        ("{mean: {field: price}}", "{mean: {}}", "aggregates: price: mean: needs a field `field:`"),
        ("unit: s", "unit: min", "unit must be one of 's', 'ms', 'us', 'ns'"),
        ("out_of_order_s: 5.0", "out_of_order: 5", "unknown field 'out_of_order'"),
    ],
)
def test_a_wrong_word_in_yaml_names_step_and_field(was: str, becomes: str, flaw: str) -> None:
    from sage_flink.flow import lists

    words = {"list_source": lists.ListSource, "list_sink": lists.ListSink}

    with pytest.raises(PipelineError, match=flaw):
        from_yaml(YAML.replace(was, becomes), words)


@pytest.mark.parametrize(
    ("json_format", "next_step", "natively"),
    [
        (Json(), lambda s: s.deduplicate("d", within_s=1), True),
        (Json(), lambda s: s.batch("b", items_max=2, bytes_max=9, linger_s=1), True),
        (Json(), lambda s: s.map("m", len), False),
        (Json(Fields(id="$.id")), lambda s: s.event_time("t", out_of_order_s=1), False),
        (Text(), lambda s: s.deduplicate("d", within_s=1), False),
    ],
)
def test_json_is_decoded_in_the_jvm_where_the_next_steps_are_there(
    json_format: Any, next_step: Any, natively: bool
) -> None:
    read = sage.flow.read("in", ListSource((), json_format))
    graph = check(next_step(read).write("out", ListSink()), "local")

    assert has_native_decoder(graph, graph.by_name["in"]) is natively
