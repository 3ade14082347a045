"""B11, the scheduler: how long does the gateway take to decide who goes next, and where?

No engine, no socket: the gateway's own queue lines, policies, replicas and router, over 1 to 1,000
simulated replicas and up to 100,000 requests that wait. A decision is what follows when a request
ends: its replica has room, one of those who wait is taken out, its hints are read, a replica is
chosen and takes it. Every replica has room, which is the most there is to choose from. What comes
into the line instead is timed apart (``enter``).

Each scheduling policy with the default routing, each routing policy with the default scheduling.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from benchmark_sage.pace import Pace
from benchmark_sage.results import Headline, Result, result
from benchmark_sage.workload import percentile
from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.capacity.memory_budget import Footprint
from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.engines import ENGINES, Launch
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.requests.request import Request
from sage_gateway.routing import POLICIES as ROUTING
from sage_gateway.scheduling import POLICIES as SCHEDULING
from sage_gateway.scheduling import QueuedRequest
from sage_gateway.scheduling.class_queues import ClassQueues

SEED, ROOM, TENANTS = 1, 8, 50
REPLICAS, QUEUED = (1, 10, 100, 1000), (0, 100, 10_000, 100_000)
ISSUE, LARGEST = "100 x 10000", "1000 x 100000"
#: Policy under test -> whether it schedules.
Arms = dict[str, dict[str, list[dict[str, float]]]]


def run(*, repeats: int, records: int = 1000, quick: bool = False) -> Result:
    """``records`` decisions a cell; ``quick``: a tenth of them, and the two cells of the floors."""
    decisions = max(32, records // 10) if quick else records
    replicas, queued = ((100, 1000), (10_000, 100_000)) if quick else (REPLICAS, QUEUED)
    sides: dict[str, Arms] = {"scheduling": {}, "routing": {}}
    arms = [("scheduling", name) for name in SCHEDULING] + [("routing", name) for name in ROUTING]
    pace = Pace([2.0] * len(arms) * repeats)
    for number in range(repeats):
        for kind, name in arms:
            cells = sides[kind].setdefault(name, {})
            spec = ModelSpec(engine="mock", kind="chat", concurrency=ROOM, **_policy(kind, name))
            for cell, row in measured(spec, replicas, queued, decisions, SEED + number):
                cells.setdefault(cell, []).append(row)
            pace.tell(f"repeat {number + 1}/{repeats}  {kind} {name:<13}", cells[LARGEST][-1])
    return result("B11", seed=SEED, repeats=repeats, sides=sides, headline=headline(sides))


def measured(
    spec: ModelSpec, replicas: tuple[int, ...], queued: tuple[int, ...], decisions: int, seed: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Every cell, ``REPLICAS x QUEUED``, with its milliseconds."""
    for waiting in queued:
        line = Line(spec, waiting, seed)
        for many in replicas:
            yield f"{many} x {waiting}", line.decided(model(spec, many, seed), decisions)


def model(spec: ModelSpec, replicas: int, seed: int) -> Model:
    """A model of ready replicas, each with some requests in flight and room for more."""
    dice = random.Random(seed)
    launch = Launch("m", spec, None, 1, Path("python"))
    found = Model("m", spec, ENGINES[spec.engine], launch, Footprint("m", 1, 1, 0, 0))
    for place in range(len(found.replica_slots), replicas):
        found.add_slot(place)
    for member in found.replica_slots:
        member.set_replica(replace(member.replica, state=ReplicaState.READY))
        for _ in range(dice.randrange(1, ROOM - 1)):
            member.acquire()
    found.ready()  # looks at every replica once, as whenever they come or go
    return found


class Line:
    """So many requests that wait, with tenants, classes, deadlines and lengths of their own."""

    def __init__(self, spec: ModelSpec, waiting: int, seed: int) -> None:
        self._dice = random.Random(seed)
        self._numbers = count()
        self._queues = ClassQueues(SCHEDULING[spec.policy]())
        self._asks = [_ask(i) for i in range(64)]
        for _ in range(waiting):
            self._queues.push(self._ticket())

    def decided(self, of: Model, decisions: int) -> dict[str, float]:
        """Milliseconds of ``decisions`` decisions; the line is as long after each as before."""
        took_ns, entered_ns = [], []
        for _ in range(decisions):
            took_ns.append(self._decision(of, self._busy(of), self._dice.choice(self._asks)))
            if len(self._queues):
                ticket = self._ticket()
                began = time.perf_counter_ns()
                self._queues.push(ticket)
                entered_ns.append(time.perf_counter_ns() - began)
        found = {"decide": took_ns, "enter": entered_ns or [0]}
        return {
            f"{what}_ms_{name}": round(percentile([n / 1e6 for n in ns], share), 5)
            for what, ns in found.items()
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }

    def _decision(self, of: Model, left: ReplicaSlot, request: Request) -> int:
        began = time.perf_counter_ns()
        left.release()
        assert of.has_room(0)
        if len(self._queues):
            self._queues.pop(time.monotonic())
        index = of.choose(of.router.hints(request))
        assert index is not None
        of.replica_slots[index].acquire()
        return time.perf_counter_ns() - began

    def _busy(self, of: Model) -> ReplicaSlot:
        while not (member := self._dice.choice(of.replica_slots)).in_flight:
            pass
        return member

    def _ticket(self) -> QueuedRequest:
        dice, number = self._dice, next(self._numbers)
        now_s = time.monotonic()
        return QueuedRequest(
            number,
            now_s,
            tenant=f"t{dice.randrange(TENANTS)}",
            priority=dice.randrange(len(PRIORITIES)),
            deadline_s=now_s + dice.uniform(60, 600),
            tokens=dice.randrange(16, 2048),
            work_s=dice.uniform(0.1, 5.0),
        )


def headline(sides: dict[str, Arms]) -> list[Headline]:
    """The slowest policy of each repeat, in the two cells that have a floor."""
    found = []
    for cell, floor in ((ISSUE, 0.1), (LARGEST, 1.0)):
        rows = [arms[cell] for policies in sides.values() for arms in policies.values()]
        slowest = [
            max(row["decide_ms_p50"] for row in repeat) for repeat in zip(*rows, strict=True)
        ]
        replicas, queued = cell.split(" x ")
        metric = f"decision p50, slowest policy, {replicas} replicas, {int(queued):,} queued"
        found.append(
            Headline.of(metric, slowest, unit="ms", better="lower", floor=floor, moonshot=0.1)
        )
    return found


def _policy(kind: str, name: str) -> dict[str, Any]:
    return {"policy" if kind == "scheduling" else "routing": name}


def _ask(number: int) -> Request:
    """One of a few conversations, with a session and a key group."""
    words = f"question {number} " * 120
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": words}]})
    headers = {b"x-session-id": b"s%d" % number, b"x-key-group": b"%d" % number}
    return Request(body=body, headers=headers)
