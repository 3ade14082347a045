"""The workload of B9 and what is made of its outcomes: pure.

Two kinds of users and four pipelines share one pool. Every source asks at random moments, whatever
became of what it asked before; all but the background job have equal weight. A request's work is
known: its answer has so many tokens, of which a slot makes one every ``TOKEN_S``.

Not independent of what it measures: sizes were set while ``adaptive`` was tuned on its simulation.
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
class Source:
    """Who asks. ``share``: of the pool's capacity at load 1. ``burst``: so many come together.

    An answer is useful within ``deadline_s``.
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
    Source("chat", 0.05, 64, 1.0, "interactive"),
    Source("search", 0.05, 64, 1.0, "interactive"),
    Source("steady", 0.20, 128, 4.0),
    Source("greedy", 0.40, 128, 4.0),
    Source("bursty", 0.20, 128, 6.0, burst=16),
    Source("backfill", 0.10, 128, 60.0, "background"),
)


@dataclass(frozen=True, slots=True)
class Due:
    """One request and its moment, in seconds from the start."""

    at_s: float
    source: Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one; ``took_s`` from when it was due, of one that failed until it did."""

    due: Due
    answered: bool
    took_s: float

    @property
    def useful(self) -> bool:
        """Whether its answer came in time."""
        return self.answered and self.took_s <= self.due.source.deadline_s


def arrivals(load: float, seconds: float, seed: int) -> list[Due]:
    """Every source's requests, by their moments."""
    found = [due for one in SOURCES for due in _of(one, load, seconds, seed)]
    return sorted(found, key=lambda due: due.at_s)


def _of(source: Source, load: float, seconds: float, seed: int) -> Iterator[Due]:
    dice = random.Random(f"{seed}/{source.name}")
    at_s = 0.0
    while (at_s := at_s + dice.expovariate(source.rate(load) / source.burst)) < seconds:
        for _ in range(source.burst):
            yield Due(at_s, source)


def figures(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """What one run of ``seconds`` came to.

    ``p99_ms``: of the users; who got no answer, refused or not, counts with all the time that was
    left. ``goodput``: tokens of useful answers over the most that could
    have been (those asked for, or the capacity). ``jain``: over the sources of equal weight, of the
    tokens answered over the source's max-min fair share.
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
    most = min(sum(asked.values()), CAPACITY * seconds)
    equals = {s.name: asked[s.name] for s in SOURCES if s.priority != "background"}
    fair = max_min(equals, CAPACITY * seconds)
    shares = [min(1.0, answered[name] / fair[name]) for name in equals if fair[name]]
    refused = sum(o.due.source.name in USERS and not o.answered for o in outcomes)
    return {
        "requests": len(outcomes),
        "p50_ms": round(percentile(users, 0.5), 1),
        "p99_ms": round(percentile(users, 0.99), 1),
        "users_unanswered": refused,
        "goodput": round(useful / most, 4),
        "jain": round(jain(shares), 4),
        "answered_tokens": answered,
        "useful_share": {
            s.name: round(_share([o.useful for o in outcomes if o.due.source is s]), 3)
            for s in SOURCES
        },
    }


def max_min(demands: Mapping[str, float], capacity: float) -> dict[str, float]:
    """The fair shares: nobody gets more than it asks for, what is left is split evenly.

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
    """Jain's index: 1 when all are equal, 1/n when one has it all.

    >>> jain([1.0, 1.0]), jain([1.0, 0.0])
    (1.0, 0.5)
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of) if of else 1.0
