"""Workload of B9 and the figures of its outcomes. Pure.

Two kinds of users and four pipelines share one pool. Every source sends requests at random moments,
independent of earlier ones; all but the background job have equal weight. The work of a request is
known: its answer has a fixed number of tokens, and a slot generates one every ``TOKEN_S``.

Not independent of the policy under test: the sizes were chosen while ``adaptive`` was tuned on its
simulation.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark_sage.workload import percentile

REPLICAS, SLOTS, TOKEN_S = 2, 4, 0.0025
CAPACITY = REPLICAS * SLOTS / TOKEN_S  # tokens a second
OPTIONS = (f"--slots={SLOTS}", "--answer-tokens=512", f"--per-token={TOKEN_S * 1000:g}ms")


@dataclass(frozen=True, slots=True)
class TrafficSource:
    """One tenant's traffic: a kind of user or a pipeline.

    ``share``: its fraction of the pool's capacity at load 1. ``burst``: requests that arrive
    together. An answer is useful within ``deadline_s``.
    """

    name: str
    share: float
    tokens: int
    deadline_s: float
    priority: str = "normal"
    burst: int = 1

    def rate(self, load: float) -> float:
        """Requests a second."""
        return load * self.share * CAPACITY / self.tokens


USERS = ("chat", "search")
SOURCES = (
    TrafficSource("chat", 0.05, 64, 1.0, "interactive"),
    TrafficSource("search", 0.05, 64, 1.0, "interactive"),
    TrafficSource("steady", 0.20, 128, 4.0),
    TrafficSource("greedy", 0.40, 128, 4.0),
    TrafficSource("bursty", 0.20, 128, 6.0, burst=16),
    TrafficSource("backfill", 0.10, 128, 60.0, "background"),
)


@dataclass(frozen=True, slots=True)
class DueRequest:
    """One request and its due time, in seconds from the start."""

    at_s: float
    source: TrafficSource


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The outcome of one request; ``took_s`` runs from its due time to its answer or failure."""

    due: DueRequest
    answered: bool
    took_s: float

    @property
    def useful(self) -> bool:
        """Whether the answer arrived before the deadline."""
        return self.answered and self.took_s <= self.due.source.deadline_s


def arrivals(load: float, seconds: float, seed: int) -> list[DueRequest]:
    """The requests of all sources, by due time."""
    found = [due for one in SOURCES for due in _of(one, load, seconds, seed)]
    return sorted(found, key=lambda due: due.at_s)


def _of(source: TrafficSource, load: float, seconds: float, seed: int) -> Iterator[DueRequest]:
    dice = random.Random(f"{seed}/{source.name}")
    at_s = 0.0
    while (at_s := at_s + dice.expovariate(source.rate(load) / source.burst)) < seconds:
        for _ in range(source.burst):
            yield DueRequest(at_s, source)


def figures(outcomes: Sequence[RequestOutcome], seconds: float) -> dict[str, Any]:
    """The figures of one run of ``seconds``.

    ``p99_ms``: of the users; a request without an answer, refused or not, counts with all the
    remaining time. ``goodput``: tokens of useful answers over the possible maximum (the requested
    tokens, or the capacity). ``jain``: Jain's index over the sources of equal weight, of the tokens
    answered over the source's max-min fair share.
    """
    users = [
        1000 * (o.took_s if o.answered else max(o.took_s, seconds - o.due.at_s))
        for o in outcomes
        if o.due.source.name in USERS
    ]
    asked, answered = (
        {s.name: sum(s.tokens for o in outcomes if o.due.source is s and test(o)) for s in SOURCES}
        for test in (lambda _: True, lambda o: o.answered)
    )
    useful = sum(o.due.source.tokens for o in outcomes if o.useful)
    possible = min(sum(asked.values()), CAPACITY * seconds)
    equals = {s.name: asked[s.name] for s in SOURCES if s.priority != "background"}
    fair = max_min(equals, CAPACITY * seconds)
    shares = [min(1.0, answered[name] / fair[name]) for name in equals if fair[name]]
    refused = sum(o.due.source.name in USERS and not o.answered for o in outcomes)
    return {
        "requests": len(outcomes),
        "p50_ms": round(percentile(users, 0.5), 1),
        "p99_ms": round(percentile(users, 0.99), 1),
        "users_unanswered": refused,
        "goodput": round(useful / possible, 4),
        "jain": round(jain(shares), 4),
        "answered_tokens": answered,
        "useful_share": {
            s.name: round(_share([o.useful for o in outcomes if o.due.source is s]), 3)
            for s in SOURCES
        },
    }


def max_min(demands: Mapping[str, float], capacity: float) -> dict[str, float]:
    """The max-min fair shares: no source gets more than its demand, the rest is split evenly.

    >>> max_min({"a": 1, "b": 5, "c": 9}, 9)
    {'a': 1, 'b': 4.0, 'c': 4.0}
    """
    shares: dict[str, float] = {}
    left = capacity
    for place, (name, demand) in enumerate(sorted(demands.items(), key=lambda d: d[1])):
        shares[name] = min(demand, left / (len(demands) - place))
        left -= shares[name]
    return {name: shares[name] for name in demands}


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 when all shares are equal, 1/n when one source gets everything.

    >>> jain([1.0, 1.0]), jain([1.0, 0.0])
    (1.0, 0.5)
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of) if of else 1.0
