"""The workload of B5: conversations with long common beginnings, and a control without any; pure.

A conversation belongs to one of a few applications, whose instructions begin each of its prompts;
every turn repeats all that was said. In the control each request is alone with instructions of its
own, as long as the others'.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark_sage.replay import Told
from benchmark_sage.workload import percentile

ENGINES, SLOTS, ANSWER_TOKENS, TURNS = 4, 4, 16, 4
APPLICATIONS, INSTRUCTION_BYTES, QUESTION_BYTES = 8, 6000, 160
#: An engine that needs 0.25 ms for a token of a prompt that it has not in its cache.
OPTIONS = (
    f"--slots={SLOTS}",
    "--per-prompt-token=250us",
    "--per-token=8ms",
    "--cache-tokens=8000",
)
CONVERSATIONS_S, THINK_S, CONTROL_S = 5.0, 0.1, 16.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: due ``at_s`` after the start, or after its conversation's turn ``after``."""

    at_s: float
    session: str
    messages: list[dict[str, str]]
    after: int | None = None


def shared(seconds: float, seed: str) -> list[Turn]:
    """Conversations that begin at random moments, their turns one after the other."""
    dice, found, at_s = random.Random(seed), list[Turn](), 0.0
    while (at_s := at_s + dice.expovariate(CONVERSATIONS_S)) < seconds:
        session = f"{seed}-{len(found)}"
        said = [_said("system", f"{seed} {dice.randrange(APPLICATIONS)}", INSTRUCTION_BYTES)]
        for turn in range(TURNS):
            said = [*said, _said("user", f"{session} {turn}", QUESTION_BYTES)]
            first = turn == 0
            after = None if first else len(found) - 1
            found.append(Turn(at_s if first else THINK_S, session, said, after))
            said = [*said, _said("assistant", f"answer {session} {turn}", ANSWER_TOKENS * 4)]
    return found


def control(seconds: float, seed: str) -> list[Turn]:
    """Requests that share nothing."""
    dice, found, at_s = random.Random(seed), list[Turn](), 0.0
    while (at_s := at_s + dice.expovariate(CONTROL_S)) < seconds:
        session = f"{seed}-{len(found)}"
        said = [_said("system", session, INSTRUCTION_BYTES), _said("user", session, QUESTION_BYTES)]
        found.append(Turn(at_s, session, said))
    return found


def _said(role: str, name: str, size: int) -> dict[str, str]:
    """Words that differ from their first on, where the name does."""
    words = random.Random(name).choices(WORDS, k=size // 6)
    return {"role": role, "content": f"{name} {' '.join(words)}"[:size]}


WORDS = [f"w{number:04d}" for number in range(10_000)]


def figures(told: Sequence[Told], engines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Milliseconds to the first token, and what the engines counted meanwhile.

    ``imbalance``: requests of the busiest engine over the mean.
    """
    answered = [one.first_ms for one in told if one.status == 200]
    requests = [engine["requests"] for engine in engines]
    prompt, cached = (
        sum(engine[name] for engine in engines) for name in ("prompt_tokens", "cached_tokens")
    )
    if not answered or not prompt:
        raise ValueError(f"nothing was answered: {sorted({one.why[:200] for one in told})[:2]}")
    return {
        "requests": len(told),
        "failed": len(told) - len(answered),
        "ttft_ms_p50": round(percentile(answered, 0.5), 2),
        "ttft_ms_p99": round(percentile(answered, 0.99), 2),
        "hit_rate": round(cached / prompt, 4),
        "imbalance": round(max(requests) * len(requests) / sum(requests), 3),
    }
