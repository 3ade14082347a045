"""The texts that wait to be gathered into embedding requests, and what a request says of its own.

Values and queues without a clock or a wire; :mod:`~sage_flink.flow.calls.embedding_batcher` drives
them.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from sage_flink.common.errors import SageError
from sage_flink.flow.graph import Call

BYTES_A_TOKEN = 4
REQUEST_ID, TENANT, PRIORITY = "x-request-id", "x-sage-tenant", "x-sage-priority"
DEADLINE, ATTEMPT, JOB = "x-sage-deadline-ms", "x-sage-attempt", "x-sage-job"


class Answer(NamedTuple):
    """How a call ended, after how many requests; ok exactly when ``error`` is None."""

    body: bytes
    attempts: int
    error: SageError | None = None


@dataclass(slots=True, eq=False)
class Text:
    """A text on its way; ends once. Times are the event loop's: ``end`` is when its own is over."""

    content: bytes
    headers: Mapping[str, str]
    arrived: float
    end: float
    answer: "asyncio.Future[Answer]"
    attempts: int = 0
    error: SageError | None = None
    #: The request that holds this text and no other.
    alone: "asyncio.Task[None] | None" = None

    def ended(self, outcome: bytes | SageError) -> None:
        """It has its vector, or will have none; without effect after its end."""
        if self.answer.done():
            return
        if isinstance(outcome, bytes):
            self.answer.set_result(Answer(outcome, self.attempts))
        else:
            self.answer.set_result(Answer(b"", self.attempts, outcome))


@dataclass(slots=True)
class Lane:
    """The waiting texts of one tenant and priority, oldest first."""

    texts: deque[Text] = field(default_factory=deque)
    bytes: int = 0

    def add(self, text: Text) -> None:
        """It waits."""
        self.texts.append(text)
        self.bytes += len(text.content)

    def due(self, node: Call, now: float) -> bool:
        """Whether a request is to go out: enough wait, or the oldest has waited enough."""
        while self.texts and self.texts[0].answer.done():
            self._next()
        full = len(self.texts) >= node.items_max or self.bytes >= node.tokens_max * BYTES_A_TOKEN
        return bool(self.texts) and (full or now >= self.texts[0].arrived + node.linger_s)

    def take(self, node: Call) -> list[Text]:
        """The oldest texts that fit one request; a single larger one goes alone."""
        taken: list[Text] = []
        room = node.tokens_max * BYTES_A_TOKEN
        while self.texts and len(taken) < node.items_max:
            room -= len(self.texts[0].content)
            if taken and room < 0:
                break
            text = self._next()
            if not text.answer.done():
                taken.append(text)
        return taken

    def _next(self) -> Text:
        text = self.texts.popleft()
        self.bytes -= len(text.content)
        return text


def lane_of(headers: Mapping[str, str]) -> tuple[str, str]:
    """Who never shares a request with whom: the tenant and the priority."""
    return headers.get(TENANT, ""), headers.get(PRIORITY, "")


def headers_of(texts: Sequence[Text]) -> dict[str, str]:
    """A lone text's own headers; else what all share, the earliest deadline, and an id.

    The id is made of the texts' ids: the same when the same texts are asked again together.
    """
    first = texts[0].headers
    if len(texts) == 1:
        return dict(first)
    asked = "".join(f"{text.headers[REQUEST_ID]}\n" for text in texts)
    id_ = sha256(asked.encode()).hexdigest()[:32]
    deadlines = [text.headers[DEADLINE] for text in texts if DEADLINE in text.headers]
    return {
        REQUEST_ID: id_,
        "idempotency-key": id_,
        "traceparent": f"00-{id_}-{id_[:16]}-00",
        **{name: first[name] for name in (TENANT, JOB, PRIORITY) if name in first},
        **({DEADLINE: min(deadlines, key=int)} if deadlines else {}),
    }
