"""Workload of B2 and B3, the same for all sides: texts in one topic, a chat call for each, answers
in another topic.

A message is ``{"text"}``, an answer ``{"text", "answer"}``; the mock engine's answer starts with a
checksum of the text, so that lost, duplicated and wrong answers can be counted.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec

from sage_flink.common import Record

FILL = "A stream is a question that does not end. " * 4


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one side. ``url`` is the engine's, without ``/v1``.

    ``records`` 0 means unbounded. ``checkpoint_s`` 0 means no checkpoints; answers are then written
    at least once and visible immediately, otherwise exactly once. ``bundle_s`` 0 means sage's
    default. ``salt`` is the prefix of each text.
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
        """The topic of the messages."""
        return f"{self.name}.texts"

    @property
    def answers(self) -> str:
        """The topic of the answers."""
        return f"{self.name}.answers"

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic of the sage side."""
        return f"{self.name}.dead-letters"

    @property
    def topics(self) -> tuple[str, str, str]:
        """All topics."""
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


def checksum(text: str) -> str:
    """The start of the mock engine's answer to ``text``.

    >>> checksum("hi")
    'sum:8f434346648f6b96'
    """
    return f"sum:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def count_answers(asked: Sequence[str], answers: Iterable[Record]) -> dict[str, int]:
    """``lost``, ``duplicated`` and ``wrong`` of the answers to ``asked``."""
    seen: dict[str, int] = {}
    wrong = 0
    for record in answers:
        page = msgspec.json.decode(record.value)
        seen[page["text"]] = seen.get(page["text"], 0) + 1
        wrong += not str(page["answer"]).startswith(checksum(page["text"]))
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
