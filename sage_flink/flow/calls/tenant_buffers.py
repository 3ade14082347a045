"""Per-tenant buffers of the texts that wait for an embedding request, and the request's headers.

Values and queues without clock or network; :mod:`~sage_flink.flow.calls.embedding_batcher` drives
them.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from sage_flink.common.errors import SageError
from sage_flink.flow.call_options import Batching

BYTES_A_TOKEN = 4
REQUEST_ID, TENANT, PRIORITY = "x-request-id", "x-sage-tenant", "x-sage-priority"
DEADLINE, ATTEMPT, JOB = "x-sage-deadline-ms", "x-sage-attempt", "x-sage-job"
SOFT_DEADLINE, CACHE = "x-sage-soft-deadline-ms", "x-sage-cache"


class CallResult(NamedTuple):
    """The end of a call after ``attempts`` requests; successful exactly when ``error`` is None."""

    body: bytes
    attempts: int
    error: SageError | None = None


@dataclass(slots=True, eq=False)
class PendingText:
    """A text in flight; settled once. Times are the event loop's: ``end`` ends its own budget."""

    content: bytes
    headers: Mapping[str, str]
    arrived: float
    end: float
    result: "asyncio.Future[CallResult]"
    attempts: int = 0
    error: SageError | None = None
    #: The request that carries this text alone.
    own_request: "asyncio.Task[None] | None" = None

    def settle(self, outcome: bytes | SageError) -> None:
        """Set the vector or the error; without effect on a settled text."""
        if self.result.done():
            return
        if isinstance(outcome, bytes):
            self.result.set_result(CallResult(outcome, self.attempts))
        else:
            self.result.set_result(CallResult(b"", self.attempts, outcome))


@dataclass(slots=True)
class TenantBuffer:
    """The pending texts of one tenant and priority, oldest first."""

    texts: deque[PendingText] = field(default_factory=deque)
    bytes: int = 0

    def add(self, text: PendingText) -> None:
        """Append the text."""
        self.texts.append(text)
        self.bytes += len(text.content)

    def due(self, batching: Batching, now: float) -> bool:
        """Whether a request should be sent: enough texts wait, or the oldest has lingered."""
        while self.texts and self.texts[0].result.done():
            self._pop()
        full = self.bytes >= batching.tokens_max * BYTES_A_TOKEN
        full = full or len(self.texts) >= batching.items_max
        return bool(self.texts) and (full or now >= self.texts[0].arrived + batching.linger_s)

    def take(self, batching: Batching) -> list[PendingText]:
        """The oldest texts that fit one request; a single larger one is a request by itself."""
        texts: list[PendingText] = []
        room = batching.tokens_max * BYTES_A_TOKEN
        while self.texts and len(texts) < batching.items_max:
            room -= len(self.texts[0].content)
            if texts and room < 0:
                break
            text = self._pop()
            if not text.result.done():
                texts.append(text)
        return texts

    def _pop(self) -> PendingText:
        text = self.texts.popleft()
        self.bytes -= len(text.content)
        return text


def buffer_key(headers: Mapping[str, str]) -> tuple[str, str]:
    """Tenant and priority: texts that differ in either never share a request."""
    return headers.get(TENANT, ""), headers.get(PRIORITY, "")


def batch_headers(texts: Sequence[PendingText]) -> dict[str, str]:
    """A single text's own headers; otherwise the shared ones, the earliest deadlines, and an id.

    The id is derived from the texts' ids: a repeated request for the same texts has the same id.
    """
    first = texts[0].headers
    if len(texts) == 1:
        return dict(first)
    ids = "".join(f"{text.headers[REQUEST_ID]}\n" for text in texts)
    id_ = sha256(ids.encode()).hexdigest()[:32]
    return {
        REQUEST_ID: id_,
        "idempotency-key": id_,
        "traceparent": f"00-{id_}-{id_[:16]}-00",
        **{name: first[name] for name in (TENANT, JOB, PRIORITY, CACHE) if name in first},
        **_earliest(texts, DEADLINE),
        **_earliest(texts, SOFT_DEADLINE),
    }


def _earliest(texts: Sequence[PendingText], name: str) -> dict[str, str]:
    times = [text.headers[name] for text in texts if name in text.headers]
    return {name: min(times, key=int)} if times else {}
