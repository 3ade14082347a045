"""B5-real: B5's question on llama.cpp with SmolLM2: time to the first token by routing.

Two engines of two slots and one thread each, which keep the beginning of a slot's last prompt;
conversations of four applications, with pages of the Python reference as instructions. Sides as in
B5, but without a control: prompts that share nothing take as long everywhere. Nothing is pinned:
the engines need both processors. A full run of 5 repeats takes about 7 minutes.
"""

import random
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import httpx

from benchmark_sage.b5_routing import PEER, Rows, Side, line
from benchmark_sage.b5_workload import Turn
from benchmark_sage.pace import Pace, attempted
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.peers.vllm_router import vllm_router
from benchmark_sage.replay import replayed
from benchmark_sage.results import Headline, Result, result
from benchmark_sage.workload import percentile

SEED, SECONDS, QUICK_SECONDS, GRACE_S = 1, 20.0, 8.0, 60.0
ENGINES, SLOTS, TURNS, APPLICATIONS, INSTRUCTION_CHARS = 2, 2, 3, 4, 1500
CONVERSATIONS_S, THINK_S = 0.25, 0.5
POLICIES = ("prefix", "round_robin", "least_loaded")
PROCESSED = re.compile(r"^llamacpp:prompt_tokens_total (\d+)", re.MULTILINE)


def run(*, repeats: int, quick: bool = False, peers: Sequence[str] = (PEER,)) -> Result:
    """Every side ``repeats`` times, interleaved."""
    seconds, kept = QUICK_SECONDS if quick else SECONDS, Rows()
    with ExitStack() as stack:
        sides = _sides(stack, peers, kept)
        pace = Pace([seconds + 5.0] * repeats * len(sides))
        for number in range(repeats):
            turns = conversations(seconds, SEED + number)
            for name, side in sides.items():
                row = attempted(routed, side, turns)
                kept[name].setdefault("shared", []).append(row)
                pace.tell(f"repeat {number + 1}/{repeats}  {name:<12}", row)
    return result("B5-real", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _sides(stack: ExitStack, peers: Sequence[str], kept: Rows) -> dict[str, Side]:
    """The sides that run; the router stands before engines that the gateway keeps for it."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sage-b5-real-")))
    plain: dict[str, Any] = {
        "engine": "llamacpp",
        "kind": "chat",
        "source": "smollm2-135m-instruct.gguf",
    }
    plain |= {"replicas": ENGINES, "slots": SLOTS, "concurrency": 64}
    names = [*POLICIES, *peers]
    models = {name: {**plain, "routing": "round_robin"} for name in names}
    models |= {name: {**plain, "routing": name} for name in POLICIES}
    sage = stack.enter_context(sage_gateway(models, folder, None, engine_core=None))
    sides: dict[str, Side] = {name: (sage, name, sage.engines(name)) for name in POLICIES}
    kept.update({name: {"settings": [{"pool": models[name]}]} for name in names})
    for name in peers:
        try:
            router = vllm_router(sage.engines(name), folder, None, policy="cache_aware")
            proxy = stack.enter_context(router)
        except Exception as error:
            kept[name] = {"error": [{"error": f"{type(error).__name__}: {error}"}]}
        else:
            kept[name] = {"settings": [proxy.settings]}
            sides[name] = (proxy, name, sage.engines(name))
    return sides


def conversations(seconds: float, seed: int) -> list[Turn]:
    """Conversations that begin at random moments; the pages differ from seed to seed."""
    dice, found, at_s = random.Random(seed), list[Turn](), 0.0
    pages = dice.sample(sorted(text for text in topics.values() if len(text) > 2000), APPLICATIONS)
    while (at_s := at_s + dice.expovariate(CONVERSATIONS_S)) < seconds:
        session, page = f"{seed}-{len(found)}", dice.choice(pages)
        said = [{"role": "system", "content": page[:INSTRUCTION_CHARS]}]
        for turn in range(TURNS):
            asked = f"Question {session}, part {turn}: what is this about?"
            said = [*said, {"role": "user", "content": asked}]
            after = None if turn == 0 else len(found) - 1
            found.append(Turn(THINK_S if turn else at_s, session, said, after))
            said = [*said, {"role": "assistant", "content": f"It is about part {turn}."}]
    return found


def routed(side: Side, turns: Sequence[Turn]) -> dict[str, Any]:
    """One run of a side; ``processed``: tokens of a prompt that an engine had to compute.

    Raises:
        ValueError: nothing was answered; with what the side said.
    """
    proxy, model, engines = side
    before = _processed(engines)
    told = replayed([line(turn, proxy, model) for turn in turns], grace_s=GRACE_S)
    answered = [one.first_ms for one in told if one.status == 200]
    if not answered:
        raise ValueError(f"nothing was answered: {sorted({one.why[:200] for one in told})[:2]}")
    processed = [b - a for a, b in zip(before, _processed(engines), strict=True)]
    return {
        "requests": len(told),
        "failed": len(told) - len(answered),
        "ttft_ms_p50": round(percentile(answered, 0.5), 1),
        "ttft_ms_p99": round(percentile(answered, 0.99), 1),
        "processed": round(sum(processed) / len(answered), 1),
        "imbalance": round(max(processed) * len(processed) / max(1, sum(processed)), 3),
    }


def _processed(engines: Sequence[str]) -> list[int]:
    pages = [httpx.get(f"{engine}/metrics", timeout=30).text for engine in engines]
    found = [PROCESSED.search(page) for page in pages]
    return [int(match[1]) if match else 0 for match in found]


def headline(rows: Rows) -> list[Headline]:
    """How many times sooner the first token comes than by round robin, and than by the peer's."""
    found = []
    for other, floor, moonshot in (("round_robin", 1.3, 3.0), (PEER, 0.98, 1.0)):
        pairs = zip(rows["prefix"]["shared"], rows.get(other, {}).get("shared", []), strict=False)
        values = [
            theirs["ttft_ms_p50"] / ours["ttft_ms_p50"]
            for ours, theirs in pairs
            if "ttft_ms_p50" in ours and "ttft_ms_p50" in theirs
        ]
        if values:
            metric = f"llama.cpp: TTFT p50 over {other}'s: times faster"
            told = Headline.of(metric, values, unit="ratio", floor=floor, moonshot=moonshot)
            found.append(told)
    return found
