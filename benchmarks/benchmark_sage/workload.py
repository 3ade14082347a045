"""The work that all sides of B2 and B3 do: texts in a topic, a chat call each, answers in another.

A message is ``{"text"}``, an answer ``{"text", "answer"}``; the mock engine's answer begins with
a checksum of the text, so a reader can tell what is lost, doubled or wrong.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec

from sage_flink.common import Record

FILL = "A stream is a question that does not end. " * 4


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one side. ``url`` is the engine's, without ``/v1``.

    ``records`` 0 is without end. ``checkpoint_s`` 0 is no checkpoints, and then answers are
    written at least once and seen at once, else exactly once. ``bundle_s`` is sage's, 0 its
    default. ``salt`` begins each text.
    """

    name: str
    url: str
    key: str = ""
    model: str = "mock"
    tokens_max: int = 16
    capacity: int = 64
    records: int = 0
    checkpoint_s: float = 0.0
    bundle_s: float = 0.0
    servers: str = ""
    salt: str = ""

    @property
    def topic(self) -> str:
        """Where the messages are."""
        return f"{self.name}.texts"

    @property
    def answers(self) -> str:
        """Where the answers go."""
        return f"{self.name}.answers"

    @property
    def dead_letters(self) -> str:
        """Where sage puts what fails."""
        return f"{self.name}.dead-letters"

    @property
    def topics(self) -> tuple[str, str, str]:
        """All of them."""
        return self.topic, self.answers, self.dead_letters


def texts(count: int, salt: str = "") -> list[str]:
    """``count`` different texts of about 190 bytes, the same for the same salt."""
    return [f"{salt}{number:06d} {FILL}" for number in range(count)]


def message(text: str) -> bytes:
    """The message of one text.

    >>> message("hi")
    b'{"text":"hi"}'
    """
    return msgspec.json.encode({"text": text})


def request(work: Work, text: str) -> bytes:
    """The chat request that every side sends for a text."""
    return msgspec.json.encode(
        {
            "model": work.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": work.tokens_max,
            "temperature": 0.0,
            "seed": 0,
        }
    )


def sum_of(text: str) -> str:
    """What the mock engine's answer to ``text`` begins with.

    >>> sum_of("hi")
    'sum:8f434346648f6b96'
    """
    return f"sum:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def accounted(asked: Sequence[str], answers: Iterable[Record]) -> dict[str, int]:
    """``lost``, ``duplicated`` and ``wrong`` of the answers to ``asked``."""
    seen: dict[str, int] = {}
    wrong = 0
    for record in answers:
        page = msgspec.json.decode(record.value)
        seen[page["text"]] = seen.get(page["text"], 0) + 1
        wrong += not str(page["answer"]).startswith(sum_of(page["text"]))
    wanted = set(asked)
    return {
        "lost": len(wanted - seen.keys()),
        "duplicated": sum(times - 1 for times in seen.values()),
        "wrong": wrong + len(seen.keys() - wanted),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of the values do not exceed (nearest rank).

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5), percentile([1.0, 2.0], 0.99)
    (2.0, 2.0)
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]
