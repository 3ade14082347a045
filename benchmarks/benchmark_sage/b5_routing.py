"""B5: the effect of the routing policy on the time to the first token.

Four engines cache prompt prefixes, as many as fit; a prompt takes time for its uncached tokens. The
load is conversations of eight applications with long instructions, then a control with unrelated
prompts. Sides: sage's policies, each with its own four engines behind one gateway, and
vllm-router's ``cache_aware``. One side runs at a time, and starts with empty caches.

The engines are mocks with a model of a prefix cache; ``B5-real`` uses llama.cpp.
A full run of 5 repeats takes about 7 minutes, ``--quick`` half a minute.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmark_sage.b4_gateway import on_core
from benchmark_sage.b5_workload import (
    ANSWER_TOKENS,
    ENGINES,
    OPTIONS,
    SLOTS,
    ConversationTurn,
    figures,
    shared_prefixes,
    unrelated_prompts,
)
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.peers.vllm_router import vllm_router
from benchmark_sage.proxies import ProxyUnderTest, cores
from benchmark_sage.replay import PlannedRequest, replay_plan
from benchmark_sage.results import Headline, Result, result

SEED, SECONDS, QUICK_SECONDS, GRACE_S = 1, 6.0, 3.0, 20.0
POLICIES = ("prefix", "round_robin", "least_loaded", "session")
PEER = "vllm-router"
ARMS = {"shared": shared_prefixes, "control": unrelated_prompts}
#: Side -> arm -> one row a repeat.
Rows = dict[str, dict[str, list[dict[str, Any]]]]
#: Proxy, model name and engines of a side.
Side = tuple[ProxyUnderTest, str, list[str]]


def run(*, repeats: int, quick: bool = False, peers: Sequence[str] = (PEER,)) -> Result:
    """Every side through both arms, ``repeats`` times."""
    seconds, kept = QUICK_SECONDS if quick else SECONDS, Rows()
    proxy_core, load_core = cores()
    with on_core(load_core), ExitStack() as stack:
        sides = _sides(stack, peers, (proxy_core, load_core), kept)
        pace = Pace([seconds + 1.5] * repeats * len(sides) * len(ARMS))
        for number in range(repeats):
            for arm, made in ARMS.items():
                turns = made(seconds, f"{SEED + number}-{arm}")
                for name, side in sides.items():
                    row = attempt(run_side, side, turns)
                    kept[name].setdefault(arm, []).append(row)
                    pace.report(f"repeat {number + 1}/{repeats}  {arm:<7} {name:<12}", row)
    return result("B5", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _sides(
    stack: ExitStack, peers: Sequence[str], on: tuple[int, int], kept: Rows
) -> dict[str, Side]:
    """The sides that started; for one that failed, a row in ``kept`` holds the error."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sage-b5-")))
    proxy_core, load_core = on
    plain = {"engine": "mock", "kind": "chat", "replicas": ENGINES, "concurrency": 256}
    plain |= {"slots": SLOTS, "arguments": list(OPTIONS)}
    models = {name: {**plain, "routing": name} for name in POLICIES}
    sage = stack.enter_context(sage_gateway(models, folder, proxy_core, engine_core=load_core))
    sides: dict[str, Side] = {name: (sage, name, sage.engines(name)) for name in models}
    kept.update({name: {"settings": [{"pool": models[name]}]} for name in models})
    for name in peers:
        try:
            own = [
                stack.enter_context(mock_engine(core=load_core, capacity=OPTIONS)).url
                for _ in range(ENGINES)
            ]
            router = vllm_router(own, folder, proxy_core, policy="cache_aware")
            proxy = stack.enter_context(router)
        except Exception as error:
            kept[name] = {"error": [{"error": f"{type(error).__name__}: {error}"}]}
        else:
            kept[name] = {"settings": [proxy.settings]}
            sides[name] = (proxy, proxy.model, own)
    return sides


def run_side(side: Side, turns: Sequence[ConversationTurn]) -> dict[str, Any]:
    """One run of a side, starting with empty caches."""
    proxy, model, engines = side
    for engine in engines:
        httpx.post(f"{engine}/stats/reset").raise_for_status()
    results = replay_plan([line(turn, proxy, model) for turn in turns], grace_s=GRACE_S)
    return figures(results, [httpx.get(f"{engine}/stats").json() for engine in engines])


def line(turn: ConversationTurn, proxy: ProxyUnderTest, model: str) -> PlannedRequest:
    """The request of a turn, streamed."""
    headers = {"x-session-id": turn.session}
    if proxy.key:
        headers["authorization"] = f"Bearer {proxy.key}"
    return PlannedRequest(
        at_s=turn.at_s,
        url=f"{proxy.url}/v1/chat/completions",
        body={
            "model": model,
            "messages": turn.messages,
            "max_tokens": ANSWER_TOKENS,
            "stream": True,
        },
        headers=headers,
        after=turn.after,
    )


def headline(rows: Rows) -> list[Headline]:
    """``prefix`` over round robin, over the peer and, in the control, over the best of all."""
    found = [
        _over(rows, "shared", ("round_robin",), "TTFT p50 over round robin's", 1.3, 3.0),
        _over(rows, "shared", (PEER,), f"TTFT p50 over {PEER}'s cache_aware", 0.98, 1.0),
        _over(
            rows,
            "control",
            ("round_robin", "least_loaded", PEER),
            "TTFT p50 over the best other's, unrelated prompts",
            0.98,
            1.0,
        ),
    ]
    return [one for one in found if one is not None]


def _over(
    rows: Rows, arm: str, others: Sequence[str], metric: str, floor: float, moonshot: float
) -> Headline | None:
    """How many times faster than the fastest of ``others``, by repeat."""
    columns = [rows.get(other, {}).get(arm, []) for other in others]
    columns = [column for column in columns if column]
    values = []
    for ours, *rest in zip(rows["prefix"].get(arm, []), *columns, strict=True):
        known = [row["ttft_ms_p50"] for row in rest if "ttft_ms_p50" in row]
        if known and "ttft_ms_p50" in ours:
            values.append(min(known) / ours["ttft_ms_p50"])
    if not values:
        return None
    return Headline.of(
        f"{metric}: times faster", values, unit="ratio", floor=floor, moonshot=moonshot
    )
