"""Batches of embeddings: texts of any records in flight, combined into requests.

Texts of one tenant and priority wait in a buffer. A request is sent when a buffer has enough texts
(by count or size) or its oldest has lingered, and fewer than REQUESTS_MAX are in flight: while the
pool is busy texts accumulate, so requests fill under load and stay small in a trickle.

A poison item does not harm the other texts of its request:

* a request that is refused for its content, or keeps failing in a way that its content may cause,
  is bisected until the poison item fails by itself; a half has one attempt, a single text all;
* a request that takes half of the time that its texts have left is cancelled, and bisected as well;
* a text without a usable vector in an otherwise good result is sent once more, by itself.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

from sage_flink.common.errors import PoolError
from sage_flink.flow.calls import embeddings
from sage_flink.flow.calls.classification import Attempt, Classification, Post, attempt
from sage_flink.flow.calls.retry_policy import RetryPolicy, out_of_time
from sage_flink.flow.calls.tenant_buffers import (
    ATTEMPT,
    CallResult,
    PendingText,
    TenantBuffer,
    batch_headers,
    buffer_key,
)
from sage_flink.flow.graph import Call

#: Embedding requests in flight of one call.
REQUESTS_MAX = 4


class _EmbeddingBatch(NamedTuple):
    """The texts of one request, and its retry policy."""

    texts: list[PendingText]
    retry: RetryPolicy

    def without_settled(self) -> "_EmbeddingBatch":
        return self._replace(texts=[text for text in self.texts if not text.result.done()])


class EmbeddingBatcher:
    """The embedding requests of one call. Lives on one event loop."""

    def __init__(self, node: Call, post: Post) -> None:
        self._node = node
        self._post = post
        self._sizes: Counter[int] = Counter()
        self._buffers: dict[tuple[str, str], TenantBuffer] = {}
        self._retries: deque[_EmbeddingBatch] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._closed = False

    async def embed(self, content: bytes, headers: Mapping[str, str], limit_s: float) -> CallResult:
        """The vector of one text, or the error that prevented it, within ``limit_s``."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        text = PendingText(content, headers, now, now + limit_s, loop.create_future())
        self._buffers.setdefault(buffer_key(headers), TenantBuffer()).add(text)
        loop.call_later(self._node.batching.linger_s, self._pump)
        self._pump()
        try:
            async with asyncio.timeout_at(text.end):
                return await text.result
        except TimeoutError:
            return CallResult(b"", text.attempts, out_of_time(limit_s, text.error))
        finally:
            if text.own_request is not None:
                text.own_request.cancel()  # without effect on a finished one

    async def aclose(self) -> None:
        """Cancel the requests in flight."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        while not self._closed and self._in_flight < REQUESTS_MAX and (batch := self._next()):
            self._in_flight += 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> _EmbeddingBatch | None:
        """The next batch to send: retries first, then the buffer with the oldest text."""
        while self._retries:
            batch = self._retries.popleft().without_settled()
            if batch.texts:
                return batch
        batching, now = self._node.batching, asyncio.get_running_loop().time()
        due = [buffer for buffer in self._buffers.values() if buffer.due(batching, now)]
        if not due:
            self._buffers = {key: buffer for key, buffer in self._buffers.items() if buffer.texts}
            return None
        texts = min(due, key=lambda buffer: buffer.texts[0].arrived).take(batching)
        return self._batch(texts)

    def _batch(self, texts: list[PendingText], uncertain_max: int | None = None) -> _EmbeddingBatch:
        attempts_max = self._node.retry.attempts_max
        return _EmbeddingBatch(texts, RetryPolicy(attempts_max, uncertain_max or attempts_max))

    async def _run(self, batch: _EmbeddingBatch) -> None:
        try:
            tried = await self._send(batch)
            if tried is None:
                self._bisect(batch)
            elif tried.classification is Classification.OK:
                self._place(batch, tried)
            else:
                self._retry(batch, tried)
        finally:
            self._in_flight -= 1
            self._pump()

    async def _send(self, batch: _EmbeddingBatch) -> Attempt | None:
        """The result of the request; None where it took too long for several texts."""
        texts, limit_s = batch.texts, None
        if len(texts) > 1:
            limit_s = (min(t.end for t in texts) - asyncio.get_running_loop().time()) / 2
        else:
            texts[0].own_request = asyncio.current_task()
        for text in texts:
            text.attempts += 1
        body = embeddings.request(self._node.spec.model, [t.content.decode() for t in texts])
        headers = {**batch_headers(texts), ATTEMPT: str(batch.retry.made + 1)}
        try:
            async with asyncio.timeout(limit_s):
                return await attempt(self._post, self._node.spec.path, body, headers)
        except TimeoutError:
            return None

    def _place(self, batch: _EmbeddingBatch, tried: Attempt) -> None:
        """Settle each text with its vector; send a text without one again by itself."""
        model, dim = self._node.spec.model, getattr(self._node.spec, "dim", 0)
        try:
            slots = embeddings.read(model, tried.body, len(batch.texts))
        except PoolError as nonsense:
            self._retry(batch, Attempt(Classification.UNCERTAIN, error=nonsense))
            return
        slots = embeddings.of_one_size(slots, self._sizes, dim)
        for text, slot in zip(batch.texts, slots, strict=True):
            if isinstance(slot, bytes) or len(batch.texts) == 1:
                text.settle(slot)
            else:
                text.error = slot
                self._retries.append(self._batch([text]))

    def _retry(self, batch: _EmbeddingBatch, tried: Attempt) -> None:
        """Send the batch again, or its halves, after a pause where it helps; or fail its texts."""
        assert tried.error is not None
        batch = batch._replace(retry=batch.retry.after(tried)).without_settled()
        kind, again = tried.classification, batch.retry.allows(tried.classification)
        pause_s = batch.retry.pause_s(tried, random.random()) if kind.retryable else 0.0  # noqa: S311
        end = asyncio.get_running_loop().time() + pause_s
        last = not again and (len(batch.texts) == 1 or not kind.content_may_be_the_cause)
        for text in batch.texts:
            text.error = tried.error
            # Without time for another attempt this error is more specific than a timeout.
            if last or text.end <= end:
                text.settle(tried.error)
        if pause_s:
            asyncio.get_running_loop().call_later(pause_s, self._resume, batch, again)
        else:
            self._resume(batch, again)

    def _resume(self, batch: _EmbeddingBatch, again: bool) -> None:
        if again:
            self._retries.append(batch)
        else:
            self._bisect(batch)
        self._pump()

    def _bisect(self, batch: _EmbeddingBatch) -> None:
        texts = batch.without_settled().texts
        middle = (len(texts) + 1) // 2
        for half in (texts[:middle], texts[middle:]):
            if half:
                self._retries.append(self._batch(half, None if len(half) == 1 else 1))
