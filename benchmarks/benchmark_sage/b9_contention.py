"""B9: four pipelines and two kinds of users on one pool, at 0.5 to 3 times its capacity.

The pool has two engines with four slots each; a request occupies a slot for the length of its
answer. Every side has its own such pool and gets the same requests at the same moments, each with
its tenant, class and deadline. ``no_admission`` sends every request to the engines immediately,
where they wait in arrival order; it is the baseline for sage's policies. These run in parallel
behind one gateway; LiteLLM runs after them, set up as its documentation recommends, and at twice
the capacity also with its own limit of requests per engine, beyond which it answers 429
(``litellm-limited``).

A full run of 5 repeats takes about 7 minutes, ``--quick`` half a minute.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmark_sage.b4_gateway import on_core
from benchmark_sage.b9_workload import (
    OPTIONS,
    REPLICAS,
    SLOTS,
    DueRequest,
    RequestOutcome,
    arrivals,
    figures,
)
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.pace import Pace
from benchmark_sage.peers.litellm_proxy import litellm
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.proxies import ProxyUnderTest, cores
from benchmark_sage.replay import PlannedRequest, replay_plan
from benchmark_sage.results import Headline, Result, result
from sage_gateway.scheduling import POLICIES

SEED, SECONDS, QUICK_SECONDS, GRACE_S, SETTLE_S, WARM_S = 1, 8.0, 4.0, 1.0, 10.0, 2.0
LOADS, QUICK_LOADS, OVERLOADS = (0.5, 1.0, 2.0, 3.0), (2.0,), (2.0, 3.0)
LIMIT, OURS = "no_admission", "adaptive"
#: Peer -> its own limit of requests per engine, and the loads it runs at.
PEERS: Mapping[str, tuple[int | None, tuple[float, ...]]] = {
    "litellm": (None, LOADS),
    "litellm-limited": (SLOTS, QUICK_LOADS),
}
NO_ADMISSION = {"concurrency": 4096, "slots": 1024}
#: Side -> load -> one row a repeat.
Rows = dict[str, dict[str, list[dict[str, Any]]]]
#: Proxy, model name and engines of a side.
Pool = tuple[ProxyUnderTest, str, list[str]]


def run(*, repeats: int, quick: bool = False, peers: Sequence[str] = tuple(PEERS)) -> Result:
    """Every side at every load, ``repeats`` times."""
    seconds, loads = (QUICK_SECONDS, QUICK_LOADS) if quick else (SECONDS, LOADS)
    kept: Rows = {}
    proxy_core, load_core = cores()
    with on_core(load_core), ExitStack() as stack:
        waves = _waves(stack, peers, (proxy_core, load_core), kept)
        order = [(load, wave) for load in loads for wave in waves if _runs(wave, load)]
        for wave in waves:  # connections and code are warm
            run_wave(wave, arrivals(0.5, WARM_S, SEED), WARM_S + GRACE_S)
        pace = Pace([seconds + GRACE_S + 0.5] * repeats * len(order))
        for number in range(repeats):
            for load, wave in order:
                dues = arrivals(load, seconds, SEED + number)
                rows = run_wave(wave, dues, seconds + GRACE_S)
                for side, row in rows.items():
                    kept[side].setdefault(f"{load:g}x", []).append(row)
                shown = OURS if OURS in rows else next(iter(rows))
                label = f"repeat {number + 1}/{repeats}  {load:g}x {shown:<9}"
                pace.report(label, rows[shown])
    return result("B9", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _waves(
    stack: ExitStack, peers: Sequence[str], on: tuple[int, int], kept: Rows
) -> list[dict[str, Pool]]:
    """Groups of sides that run together; for one that failed, a row in ``kept`` holds the error."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sage-b9-")))
    proxy_core, load_core = on
    models = {name: model(policy=name) for name in POLICIES} | {LIMIT: model(**NO_ADMISSION)}
    sage = stack.enter_context(sage_gateway(models, folder, proxy_core, engine_core=load_core))
    engines = sage.engines()
    waves: list[dict[str, Pool]] = [{name: (sage, name, engines) for name in models}]
    kept.update({name: {"settings": [{"pool": models[name]}]} for name in models})
    for name in peers:
        try:
            own = [
                stack.enter_context(mock_engine(core=load_core, capacity=OPTIONS)).url
                for _ in range(REPLICAS)
            ]
            proxy = stack.enter_context(litellm(own, folder, proxy_core, slots=PEERS[name][0]))
        except Exception as error:
            kept[name] = {"error": [{"error": f"{type(error).__name__}: {error}"}]}
        else:
            kept[name] = {"settings": [proxy.settings]}
            waves.append({name: (proxy, proxy.model, own)})
    return waves


def _runs(wave: Mapping[str, Pool], load: float) -> bool:
    return all(load in PEERS[side][1] for side in wave if side in PEERS)


def model(**more: object) -> dict[str, Any]:
    """The entry of one side's model in ``pool.yaml``."""
    plain = {"engine": "mock", "kind": "chat", "replicas": REPLICAS, "concurrency": SLOTS}
    plain["slots"] = SLOTS
    return {**plain, "arguments": list(OPTIONS), **more}


def run_wave(
    wave: Mapping[str, Pool], dues: Sequence[DueRequest], end_s: float
) -> dict[str, dict[str, Any]]:
    """One run of the sides of a wave; all get the same requests at the same moments."""
    engines = {engine for _, _, own in wave.values() for engine in own}
    _wait_idle(engines)
    proxy = next(iter(wave.values()))[0]
    plan = [_line(due, n, *pool[:2]) for n, due in enumerate(dues) for pool in wave.values()]
    before = proxy.cpu_s()
    results = replay_plan(plan, grace_s=end_s - dues[-1].at_s)
    cpu_s = (proxy.cpu_s() - before) / len(plan) * 1000
    rows = {}
    for place, side in enumerate(wave):
        own = results[place :: len(wave)]
        pairs = zip(dues, own, strict=True)
        outcomes = [
            RequestOutcome(due, one.status == 200, one.took_ms / 1000) for due, one in pairs
        ]
        refusals = sorted({_refusal(one.why) for one in own if one.why})[:3]
        shared = {"cpu_s_per_1000": round(cpu_s, 3), "rss_mib": round(proxy.rss_mib(), 1)}
        rows[side] = {**figures(outcomes, end_s), **shared, "said": refusals}
    return rows


def _refusal(why: str) -> str:
    """The reason of a failed request, without the address."""
    return why.rpartition('": ')[2][:120] if why.startswith("Post ") else why[:120]


def _line(due: DueRequest, number: int, proxy: ProxyUnderTest, model: str) -> PlannedRequest:
    source = due.source
    message = {"role": "user", "content": f"{source.name} {number}"}
    return PlannedRequest(
        at_s=due.at_s,
        url=f"{proxy.url}/v1/chat/completions",
        body={"model": model, "messages": [message], "max_tokens": source.tokens},
        headers={
            "authorization": f"Bearer {proxy.key}",
            "x-sage-tenant": source.name,
            "x-sage-priority": source.priority,
        },
        deadline_s=source.deadline_s,
    )


def _wait_idle(engines: set[str]) -> None:
    """Wait until no engine has a request of an earlier run."""
    deadline = time.monotonic() + SETTLE_S
    for engine in engines:
        while httpx.get(f"{engine}/stats").json()["in_flight"] > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{engine} is busy {SETTLE_S:g} s after a run")
            time.sleep(0.05)


def headline(rows: Rows) -> list[Headline]:
    """``adaptive`` above the pool's capacity: users' p99, goodput, fairness."""
    found = []
    for load in (f"{load:g}x" for load in OVERLOADS):
        ours, limit = rows[OURS].get(load, []), rows[LIMIT].get(load, [])
        if not ours:
            continue
        pairs = zip(ours, limit, strict=True)
        less = [1 - a["p99_ms"] / b["p99_ms"] for a, b in pairs]
        metric = f"p99 of users below that without admission, {load}"
        found.append(Headline.of(metric, less, unit="ratio", floor=0.57, moonshot=0.75))
        for figure in ("goodput", "jain"):
            values = [row[figure] for row in ours]
            metric = f"{figure}, {load}"
            found.append(Headline.of(metric, values, unit="ratio", floor=0.9, moonshot=0.95))
    return found
