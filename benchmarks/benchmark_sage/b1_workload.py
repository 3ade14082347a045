"""The input of B1, and the results that every side has to make of it.

Three topics of JSON: ``events`` of about 100 bytes for the topologies of one topic, ``orders`` and
``payments`` for the join. All are up to 2 s out of order in event time. The last event, of the key
``end``, is a minute later and ends all windows before it; the window of its own is not compared.

>>> [event["user"] for event in events(3)]
['user-0', 'user-4729', 'end']
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, get_args

import msgspec

Topology = Literal["stateless", "count", "sums", "join"]
TOPOLOGIES: tuple[Topology, ...] = get_args(Topology)
KEYS, EVENTS_PER_S, WINDOW_S, DISORDER_S, WITHIN_S = 10_000, 5_000, 10, 2, 1
FIRST_MS, END_MS, END = 1_700_000_000_000, 60_000, "end"
#: Prime, so that the disorder of a key differs from event to event.
JITTER_MS = 1_999
Message = dict[str, Any]


class IngestWork(msgspec.Struct, frozen=True):
    """One run of one side. It reads ``topics`` from their start and ends behind ``records``.

    ``topics`` are events, or orders and payments. A payment belongs to an order of its user that is
    at most ``within_s`` earlier.
    """

    topology: Topology
    topics: tuple[str, ...]
    records: int
    out: str
    servers: str
    window_s: int = WINDOW_S
    disorder_s: int = DISORDER_S
    within_s: int = WITHIN_S


def events(count: int) -> Iterator[Message]:
    """The events, each key equally often, a second one of two kinds."""
    for number in range(count - 1):
        yield {
            "user": _user(number),
            "kind": "view" if number % 2 else "buy",
            "at": FIRST_MS + number * 1000 // EVENTS_PER_S - number * 7919 % JITTER_MS,
            "price": number % 997 / 8,
            "page": f"/shop/items/{number % 977:04}",
        }
    at = FIRST_MS + count * 1000 // EVENTS_PER_S + END_MS
    yield {"user": END, "kind": END, "at": at, "price": 0.0, "page": ""}


def orders(count: int) -> Iterator[Message]:
    """The left input of the join; a user has an order every two seconds."""
    for number in range(count):
        behind_ms = number * 7919 % JITTER_MS
        yield {"user": _user(number), "at": _order_ms(number) - behind_ms, "price": number % 1000}


def payments(count: int) -> Iterator[Message]:
    """The right input; about half of the payments belong to an order."""
    for number in range(count):
        behind_ms = number * 6007 % JITTER_MS
        yield {
            "user": _user(number),
            "at": _order_ms(number) + WITHIN_S * 500 - behind_ms,
            "paid": number % 777,
        }


def inputs(topology: Topology, records: int) -> dict[str, Iterator[Message]]:
    """The topics of a topology by name, with ``records`` messages in all."""
    if topology == "join":
        half = records // 2
        return {"orders": orders(half), "payments": payments(records - half)}
    return {"events": events(records)}


def read_before_first_result(topology: Topology, records: int) -> int:
    """How many records a side has to read before its first result: those of the first windows."""
    if topology != "sums":
        return 0
    ended_ms = FIRST_MS + DISORDER_S * 1000
    reading = enumerate(events(records))
    return next(number for number, event in reading if event["at"] >= ended_ms)


def expected_summary(topology: Topology, records: int) -> dict[str, float]:
    """The :func:`summary` of the results of any side, computed without an engine."""
    match topology:
        case "stateless":
            return summary(topology, (e for e in events(records) if e["kind"] == "buy"))
        case "count":
            return summary(topology, _running_counts(events(records)))
        case "sums":
            return summary(topology, _window_sums(events(records)))
        case "join":
            left, right = inputs(topology, records).values()
            return summary(topology, _pairs(left, right))


def summary(topology: Topology, results: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """How many results there are, and sums of their fields; the order is that of the topic.

    Of ``count`` only the last result of each key: an engine may repeat it at the end of its input.
    The number of all results is ``written`` in the result file.
    """
    if topology == "count":
        last = {result["key"]: result["n"] for result in results}
        return {"results": len(last), "n": sum(last.values())}
    if topology == "sums":
        results = (result for result in results if result["key"] != END)
    totals: dict[str, float] = defaultdict(int)
    for result in results:
        totals["results"] += 1
        for name in _SUMMED[topology]:
            place, _, field = name.rpartition(".")
            totals[name] += (result[place] if place else result)[field]
    return dict(totals)


_SUMMED: dict[Topology, tuple[str, ...]] = {
    "stateless": ("at", "price"),
    "sums": ("n", "total", "low", "high"),
    "join": ("left.at", "left.price", "right.at", "right.paid"),
}


def _user(number: int) -> str:
    return f"user-{number * 104_729 % KEYS}"


def _order_ms(number: int) -> int:
    return FIRST_MS + number * 1000 // EVENTS_PER_S


def _running_counts(of: Iterable[Message]) -> Iterator[Message]:
    counts: dict[str, int] = defaultdict(int)
    for event in of:
        counts[event["user"]] += 1
        yield {"key": event["user"], "n": counts[event["user"]]}


def _window_sums(of: Iterable[Message]) -> Iterator[Message]:
    prices: dict[tuple[str, int], list[float]] = defaultdict(list)
    for event in of:
        prices[event["user"], event["at"] // (WINDOW_S * 1000)].append(event["price"])
    for (user, _), found in prices.items():
        yield {
            "key": user,
            "n": len(found),
            "total": sum(found),
            "low": min(found),
            "high": max(found),
        }


def _pairs(left: Iterable[Message], right: Iterable[Message]) -> Iterator[Message]:
    by_user: dict[str, list[Message]] = defaultdict(list)
    for order in left:
        by_user[order["user"]].append(order)
    for found in by_user.values():
        found.sort(key=_at)
    for payment in right:
        mine, at = by_user[payment["user"]], payment["at"]
        first = bisect_left(mine, at - WITHIN_S * 1000, key=_at)
        for order in islice(mine, first, bisect_right(mine, at, key=_at)):
            yield {"left": order, "right": payment}


def _at(message: Message) -> int:
    return int(message["at"])
