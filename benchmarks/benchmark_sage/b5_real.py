"""B5-real: B5 on llama.cpp with SmolLM2, time to the first token by routing policy.

Two engines with two slots and one thread each, which cache the prefix of a slot's last prompt;
conversations of four applications, with pages of the Python reference as instructions. Sides as in
B5, but without a control: unrelated prompts take the same time with any policy. No process is
pinned to a core: the engines need both. A full run of 5 repeats takes about 7 minutes.
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
from benchmark_sage.b5_workload import ConversationTurn
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.peers.sage_gateway import sage_gateway
from benchmark_sage.peers.vllm_router import vllm_router
from benchmark_sage.replay import replay_plan
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
                row = attempt(run_side, side, turns)
                kept[name].setdefault("shared", []).append(row)
                pace.report(f"repeat {number + 1}/{repeats}  {name:<12}", row)
    return result("B5-real", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def _sides(stack: ExitStack, peers: Sequence[str], kept: Rows) -> dict[str, Side]:
    """The sides that started. The router uses engines that the gateway runs for it."""
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


def conversations(seconds: float, seed: int) -> list[ConversationTurn]:
    """Conversations with random start times; the pages depend on the seed."""
    dice, found, at_s = random.Random(seed), list[ConversationTurn](), 0.0
    pages = dice.sample(sorted(text for text in topics.values() if len(text) > 2000), APPLICATIONS)
    while (at_s := at_s + dice.expovariate(CONVERSATIONS_S)) < seconds:
        session, page = f"{seed}-{len(found)}", dice.choice(pages)
        messages = [{"role": "system", "content": page[:INSTRUCTION_CHARS]}]
        for turn in range(TURNS):
            question = f"Question {session}, part {turn}: what is this about?"
            messages = [*messages, {"role": "user", "content": question}]
            after = None if turn == 0 else len(found) - 1
            found.append(ConversationTurn(THINK_S if turn else at_s, session, messages, after))
            answer = f"It is about part {turn}."
            messages = [*messages, {"role": "assistant", "content": answer}]
    return found


def run_side(side: Side, turns: Sequence[ConversationTurn]) -> dict[str, Any]:
    """One run of a side; ``processed``: prompt tokens per request that an engine had to compute.

    Raises:
        ValueError: no request was answered; the message holds the side's errors.
    """
    proxy, model, engines = side
    before = _prompt_tokens(engines)
    results = replay_plan([line(turn, proxy, model) for turn in turns], grace_s=GRACE_S)
    answered = [one.first_ms for one in results if one.status == 200]
    if not answered:
        raise ValueError(f"no request answered: {sorted({one.why[:200] for one in results})[:2]}")
    processed = [b - a for a, b in zip(before, _prompt_tokens(engines), strict=True)]
    return {
        "requests": len(results),
        "failed": len(results) - len(answered),
        "ttft_ms_p50": round(percentile(answered, 0.5), 1),
        "ttft_ms_p99": round(percentile(answered, 0.99), 1),
        "processed": round(sum(processed) / len(answered), 1),
        "imbalance": round(max(processed) * len(processed) / max(1, sum(processed)), 3),
    }


def _prompt_tokens(engines: Sequence[str]) -> list[int]:
    pages = [httpx.get(f"{engine}/metrics", timeout=30).text for engine in engines]
    found = [PROCESSED.search(page) for page in pages]
    return [int(match[1]) if match else 0 for match in found]


def headline(rows: Rows) -> list[Headline]:
    """How many times faster the first token is than with round robin, and than with the peer."""
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
            found.append(Headline.of(metric, values, unit="ratio", floor=floor, moonshot=moonshot))
    return found
