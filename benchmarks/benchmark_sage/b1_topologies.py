"""The topologies of B1 as pipelines of sage, each declared and with functions in Python.

``native``: no step of the declared form runs in Python. The other form has Python functions: a
filter and a map, a fold, or a map in front of the same windows and join.
"""

from collections.abc import Callable
from typing import Any

import sage_flink as sage
from benchmark_sage.b1_workload import IngestWork, Topology
from sage_connectors import Json, kafka
from sage_flink.common import Record
from sage_flink.flow import Count, Early, Global, Graph, Max, Min, Stream, Sum, Tumbling
from sage_flink.operators import Select, Where


def build(work: IngestWork, *, native: bool) -> Graph:
    """The pipeline of one run."""
    results = _TOPOLOGIES[work.topology](work, native)
    written = results.write("out", kafka(work.out, work.servers, format=Json()))
    return written.dead_letters_to(kafka(f"{work.out}.failed", work.servers))


def _stateless(work: IngestWork, native: bool) -> Stream:
    events = _read(work, "events")
    if not native:
        return events.filter("buys", is_buy).map("fields", some_fields)
    return events.filter("buys", Where("kind", "buy")).map(
        "fields", Select(("user", "at", "price"))
    )


def _count(work: IngestWork, native: bool) -> Stream:
    by_user = _read(work, "events").key_by("by-user", "user")
    if not native:
        return by_user.fold("count", add_one, initial=0)
    return by_user.window("count", Global(), {"n": Count()}, early=Early(every_records=1))


def _sums(work: IngestWork, native: bool) -> Stream:
    return _with_event_time(work, "events", native).window(
        "sums",
        Tumbling(work.window_s),
        {"n": Count(), "total": Sum("price"), "low": Min("price"), "high": Max("price")},
    )


def _join(work: IngestWork, native: bool) -> Stream:
    orders, payments = (_with_event_time(work, name, native) for name in ("orders", "payments"))
    return orders.join("pairs", payments, within_s=(0.0, float(work.within_s)))


_TOPOLOGIES: dict[Topology, Callable[[IngestWork, bool], Stream]] = {
    "stateless": _stateless,
    "count": _count,
    "sums": _sums,
    "join": _join,
}


def _read(work: IngestWork, name: str) -> Stream:
    topic = work.topics[1 if name == "payments" else 0]
    return sage.flow.read(name, kafka(topic, work.servers, bounded=True, format=Json()))


def _with_event_time(work: IngestWork, name: str, native: bool) -> Stream:
    read = _read(work, name)
    if not native:
        read = read.map(f"{name}.check", check_amount)
    timed = read.event_time(f"{name}.time", field="at", out_of_order_s=work.disorder_s)
    return timed.key_by(f"{name}.by-user", "user")


def is_buy(record: Record) -> bool:
    """Whether the event is of the kind ``buy``."""
    return bool(record.value["kind"] == "buy")


def some_fields(record: Record) -> dict[str, Any]:
    """The event without its kind and page."""
    return {name: record.value[name] for name in ("user", "at", "price")}


def add_one(count: int, record: Record) -> tuple[int, list[dict[str, Any]]]:
    """The number of events of the user, as state and as result."""
    return count + 1, [{"key": record.value["user"], "n": count + 1}]


def check_amount(record: Record) -> Any:
    """The value, looked at in Python."""
    value = record.value
    return value if value.get("price", value.get("paid")) >= 0 else None
