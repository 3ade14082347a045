"""Workload of B5: conversations with long shared prefixes, and a control without any. Pure.

A conversation belongs to one of a few applications, with its instructions at the start of each
prompt; every turn repeats all earlier messages. In the control each request has its own
instructions of the same length.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark_sage.replay import RequestResult
from benchmark_sage.workload import percentile

ENGINES, SLOTS, ANSWER_TOKENS, TURNS = 4, 4, 16, 4
APPLICATIONS, INSTRUCTION_BYTES, QUESTION_BYTES = 8, 6000, 160
#: An engine that needs 0.25 ms for each uncached prompt token.
OPTIONS = (
    f"--slots={SLOTS}",
    "--per-prompt-token=250us",
    "--per-token=8ms",
    "--cache-tokens=8000",
)
CONVERSATIONS_S, THINK_S, CONTROL_S = 5.0, 0.1, 16.0


@dataclass(frozen=True, slots=True)
class ConversationTurn:
    """One request: due ``at_s`` after the start, or after its conversation's turn ``after``."""

    at_s: float
    session: str
    messages: list[dict[str, str]]
    after: int | None = None


def shared_prefixes(seconds: float, seed: str) -> list[ConversationTurn]:
    """Conversations with random start times, each turn after the answer to the one before."""
    dice, found, at_s = random.Random(seed), list[ConversationTurn](), 0.0
    while (at_s := at_s + dice.expovariate(CONVERSATIONS_S)) < seconds:
        session = f"{seed}-{len(found)}"
        said = [_message("system", f"{seed} {dice.randrange(APPLICATIONS)}", INSTRUCTION_BYTES)]
        for turn in range(TURNS):
            said = [*said, _message("user", f"{session} {turn}", QUESTION_BYTES)]
            first = turn == 0
            after = None if first else len(found) - 1
            found.append(ConversationTurn(at_s if first else THINK_S, session, said, after))
            said = [*said, _message("assistant", f"answer {session} {turn}", ANSWER_TOKENS * 4)]
    return found


def unrelated_prompts(seconds: float, seed: str) -> list[ConversationTurn]:
    """Requests without a common prefix."""
    dice, found, at_s = random.Random(seed), list[ConversationTurn](), 0.0
    while (at_s := at_s + dice.expovariate(CONTROL_S)) < seconds:
        session = f"{seed}-{len(found)}"
        said = [
            _message("system", session, INSTRUCTION_BYTES),
            _message("user", session, QUESTION_BYTES),
        ]
        found.append(ConversationTurn(at_s, session, said))
    return found


def _message(role: str, name: str, size: int) -> dict[str, str]:
    """A message of random words; those of two names differ from the first word on."""
    words = random.Random(name).choices(WORDS, k=size // 6)
    return {"role": role, "content": f"{name} {' '.join(words)}"[:size]}


WORDS = [f"w{number:04d}" for number in range(10_000)]


def figures(results: Sequence[RequestResult], engines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Milliseconds to the first token, and the engines' cache hit rate.

    ``imbalance``: requests of the busiest engine over the mean.
    """
    answered = [one.first_ms for one in results if one.status == 200]
    requests = [engine["requests"] for engine in engines]
    prompt, cached = (
        sum(engine[name] for engine in engines) for name in ("prompt_tokens", "cached_tokens")
    )
    if not answered or not prompt:
        raise ValueError(f"no request answered: {sorted({one.why[:200] for one in results})[:2]}")
    return {
        "requests": len(results),
        "failed": len(results) - len(answered),
        "ttft_ms_p50": round(percentile(answered, 0.5), 2),
        "ttft_ms_p99": round(percentile(answered, 0.99), 2),
        "hit_rate": round(cached / prompt, 4),
        "imbalance": round(max(requests) * len(requests) / sum(requests), 3),
    }
