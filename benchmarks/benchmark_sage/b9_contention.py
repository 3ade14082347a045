"""B9: four pipelines and two kinds of users on one pool, at half to three times what it can do.

The pool is two engines of four slots each; a request takes one for as long as its answer is. Every
side has such a pool of its own and gets the same requests at the same moments, each with its
tenant, class and deadline. ``no_admission`` sends all of them to the engines at once, where they
wait by arrival; that is what sage's policies are held against. They run side by side behind one
gateway; LiteLLM runs after them, as its documentation has it, and at twice the load also with its
own limit of requests at an engine, beyond which it answers 429 (``litellm-limited``).

A full run of 5 repeats takes about 7 minutes, ``--quick`` half a minute.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmark_sage.b4_gateway import confined
from benchmark_sage.b9_workload import (
    OPTIONS,
    REPLICAS,
    SLOTS,
    Due,
    Outcome,
    arrivals,
    figures,
)
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.pace import Pace
from benchmark_sage.peers.litellm_proxy import litellm
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.proxies import Proxy, cores
from benchmark_sage.replay import Line, replayed
from benchmark_sage.results import Headline, Result, result
from sage_gateway.scheduling import POLICIES

SEED, SECONDS, QUICK_SECONDS, GRACE_S, SETTLE_S, WARM_S = 1, 8.0, 4.0, 1.0, 10.0, 2.0
LOADS, QUICK_LOADS, OVERLOADS = (0.5, 1.0, 2.0, 3.0), (2.0,), (2.0, 3.0)
LIMIT, OURS = "no_admission", "adaptive"
#: Peer -> its own limit of requests at an engine, and the loads it runs at.
PEERS: Mapping[str, tuple[int | None, tuple[float, ...]]] = {
    "litellm": (None, LOADS),
    "litellm-limited": (SLOTS, QUICK_LOADS),
}
NO_ADMISSION = {"concurrency": 4096, "slots": 1024}
#: Side -> load -> one row a repeat.
Rows = dict[str, dict[str, list[dict[str, Any]]]]
#: Side -> its address, key, and name of the model; its engines.
Pool = tuple[Proxy, str, list[str]]


def run(*, repeats: int, quick: bool = False, peers: Sequence[str] = tuple(PEERS)) -> Result:
    """Every side at every load, ``repeats`` times."""
    seconds, loads = (QUICK_SECONDS, QUICK_LOADS) if quick else (SECONDS, LOADS)
    kept: Rows = {}
    proxy_core, load_core = cores()
    with confined(load_core), ExitStack() as stack:
        waves = _waves(stack, peers, (proxy_core, load_core), kept)
        order = [(load, wave) for load in loads for wave in waves if _runs(wave, load)]
        for wave in waves:  # connections and code are warm
            contended(wave, arrivals(0.5, WARM_S, SEED), WARM_S + GRACE_S)
        pace = Pace([seconds + GRACE_S + 0.5] * repeats * len(order))
        for number in range(repeats):
            for load, wave in order:
                dues = arrivals(load, seconds, SEED + number)
                rows = contended(wave, dues, seconds + GRACE_S)
                for side, row in rows.items():
                    kept[side].setdefault(f"{load:g}x", []).append(row)
                shown = OURS if OURS in rows else next(iter(rows))
                label = f"repeat {number + 1}/{repeats}  {load:g}x {shown:<9}"
                pace.tell(label, rows[shown])
    return result("B9", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _waves(
    stack: ExitStack, peers: Sequence[str], on: tuple[int, int], kept: Rows
) -> list[dict[str, Pool]]:
    """The sides that run together; one that does not start is a row that says why."""
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
    """One side's pool, as ``pool.yaml`` has it."""
    plain = {"engine": "mock", "kind": "chat", "replicas": REPLICAS, "concurrency": SLOTS}
    plain["slots"] = SLOTS
    return {**plain, "arguments": list(OPTIONS), **more}


def contended(
    wave: Mapping[str, Pool], dues: Sequence[Due], end_s: float
) -> dict[str, dict[str, Any]]:
    """One run of the sides of a wave, all of them asked the same at the same moments."""
    engines = {engine for _, _, own in wave.values() for engine in own}
    _settled(engines)
    proxy = next(iter(wave.values()))[0]
    plan = [_line(due, n, *pool[:2]) for n, due in enumerate(dues) for pool in wave.values()]
    before = proxy.cpu_s()
    told = replayed(plan, grace_s=end_s - dues[-1].at_s)
    cpu_s = (proxy.cpu_s() - before) / len(plan) * 1000
    rows = {}
    for place, side in enumerate(wave):
        of = zip(dues, told[place :: len(wave)], strict=True)
        outcomes = [Outcome(due, one.status == 200, one.took_ms / 1000) for due, one in of]
        refusals = sorted({_said(one.why) for one in told[place :: len(wave)] if one.why})[:3]
        shared = {"cpu_s_per_1000": round(cpu_s, 3), "rss_mib": round(proxy.rss_mib(), 1)}
        rows[side] = {**figures(outcomes, end_s), **shared, "said": refusals}
    return rows


def _said(why: str) -> str:
    """Why there is no answer, without the address."""
    return why.rpartition('": ')[2][:120] if why.startswith("Post ") else why[:120]


def _line(due: Due, number: int, proxy: Proxy, model: str) -> Line:
    source = due.source
    message = {"role": "user", "content": f"{source.name} {number}"}
    return Line(
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


def _settled(engines: set[str]) -> None:
    """Wait until no engine has anything left of the run before."""
    deadline = time.monotonic() + SETTLE_S
    for engine in engines:
        while httpx.get(f"{engine}/stats").json()["in_flight"] > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{engine} is busy {SETTLE_S:g} s after a run")
            time.sleep(0.05)


def headline(rows: Rows) -> list[Headline]:
    """Of ``adaptive`` above what the pool can do: users' p99, goodput, fairness."""
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
