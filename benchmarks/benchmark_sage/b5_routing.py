"""B5: which engine gets a request, and what that does to the time to its first token.

Four engines that remember the beginnings of prompts, as many as fit; a prompt costs time for what
is not remembered. Conversations of eight applications with long instructions, then a control that
shares nothing. Sides: sage's policies, each with four engines of its own behind one gateway, and
vllm-router's ``cache_aware``. One side runs at a time, every engine forgets all before it.

The engines are mocks with a model of a prefix cache; ``B5-real`` asks llama.cpp.
A full run of 5 repeats takes about 7 minutes, ``--quick`` half a minute.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmark_sage.b4_gateway import confined
from benchmark_sage.b5_workload import (
    ANSWER_TOKENS,
    ENGINES,
    OPTIONS,
    SLOTS,
    Turn,
    control,
    figures,
    shared,
)
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.pace import Pace, attempted
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.peers.vllm_router import vllm_router
from benchmark_sage.proxies import Proxy, cores
from benchmark_sage.replay import Line, replayed
from benchmark_sage.results import Headline, Result, result

SEED, SECONDS, QUICK_SECONDS, GRACE_S = 1, 6.0, 3.0, 20.0
POLICIES = ("prefix", "round_robin", "least_loaded", "session")
PEER = "vllm-router"
ARMS = {"shared": shared, "control": control}
#: Side -> arm -> one row a repeat.
Rows = dict[str, dict[str, list[dict[str, Any]]]]
#: Its proxy, the name of its model, its engines.
Side = tuple[Proxy, str, list[str]]


def run(*, repeats: int, quick: bool = False, peers: Sequence[str] = (PEER,)) -> Result:
    """Every side through both arms, ``repeats`` times."""
    seconds, kept = QUICK_SECONDS if quick else SECONDS, Rows()
    proxy_core, load_core = cores()
    with confined(load_core), ExitStack() as stack:
        sides = _sides(stack, peers, (proxy_core, load_core), kept)
        pace = Pace([seconds + 1.5] * repeats * len(sides) * len(ARMS))
        for number in range(repeats):
            for arm, made in ARMS.items():
                turns = made(seconds, f"{SEED + number}-{arm}")
                for name, side in sides.items():
                    row = attempted(routed, side, turns)
                    kept[name].setdefault(arm, []).append(row)
                    pace.tell(f"repeat {number + 1}/{repeats}  {arm:<7} {name:<12}", row)
    return result("B5", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _sides(
    stack: ExitStack, peers: Sequence[str], on: tuple[int, int], kept: Rows
) -> dict[str, Side]:
    """The sides that run; one that does not is a row that says why."""
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


def routed(side: Side, turns: Sequence[Turn]) -> dict[str, Any]:
    """One run of a side, its engines' caches empty."""
    proxy, model, engines = side
    for engine in engines:
        httpx.post(f"{engine}/stats/reset").raise_for_status()
    told = replayed([line(turn, proxy, model) for turn in turns], grace_s=GRACE_S)
    return figures(told, [httpx.get(f"{engine}/stats").json() for engine in engines])


def line(turn: Turn, proxy: Proxy, model: str) -> Line:
    """The request of a turn, streamed."""
    headers = {"x-session-id": turn.session}
    if proxy.key:
        headers["authorization"] = f"Bearer {proxy.key}"
    return Line(
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
    """Of ``prefix``: over round robin and over the peer; in the control over the best of all."""
    found = [
        _over(rows, "shared", ("round_robin",), "TTFT p50 over round robin's", 1.3, 3.0),
        _over(rows, "shared", (PEER,), f"TTFT p50 over {PEER}'s cache_aware", 0.98, 1.0),
        _over(
            rows,
            "control",
            ("round_robin", "least_loaded", PEER),
            "TTFT p50 over the best other's, nothing shared",
            0.98,
            1.0,
        ),
    ]
    return [one for one in found if one is not None]


def _over(
    rows: Rows, arm: str, others: Sequence[str], metric: str, floor: float, moonshot: float
) -> Headline | None:
    """How many times faster than the fastest of ``others``, of each repeat."""
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
