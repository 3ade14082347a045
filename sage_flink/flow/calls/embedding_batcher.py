"""Texts of any records in flight, gathered into embedding requests.

Texts of one tenant and priority wait in a lane. A request goes out when a lane has enough texts (by
count or size) or its oldest has lingered, and fewer than REQUESTS_MAX are in flight: while the pool
is busy texts go on gathering, so requests fill under load and stay small in a trickle.

No text harms the others of its request:

* a request that is refused for its content, or keeps failing in a way that its content may cause,
  is halved until the guilty text fails alone; a half has one attempt, a lone text all of them;
* one that takes half of the time that its texts have left is ended, and halved as well;
* a text without a usable vector in an answer that is good otherwise is asked once more, alone.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

from sage_flink.common.errors import PoolError
from sage_flink.flow.calls import embeddings
from sage_flink.flow.calls.classification import Attempt, Post, Verdict, attempt, out_of_time
from sage_flink.flow.calls.retry_policy import Tries
from sage_flink.flow.calls.tenant_buffers import ATTEMPT, Answer, Lane, Text, headers_of, lane_of
from sage_flink.flow.graph import Call

#: Gathered requests in flight of one call.
REQUESTS_MAX = 4


class _Batch(NamedTuple):
    """Texts that go into one request, and how often that was tried."""

    texts: list[Text]
    tries: Tries

    def waiting(self) -> "_Batch":
        return self._replace(texts=[text for text in self.texts if not text.answer.done()])


class Gather:
    """The embedding requests of one call. Lives on one event loop."""

    def __init__(self, node: Call, post: Post) -> None:
        self._node = node
        self._post = post
        self._sizes: Counter[int] = Counter()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._again: deque[_Batch] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._closed = False

    async def answer(self, content: bytes, headers: Mapping[str, str], limit_s: float) -> Answer:
        """The vector of one text, or why there is none, within ``limit_s``."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        text = Text(content, headers, now, now + limit_s, loop.create_future())
        self._lanes.setdefault(lane_of(headers), Lane()).add(text)
        loop.call_later(self._node.linger_s, self._pump)
        self._pump()
        try:
            async with asyncio.timeout_at(text.end):
                return await text.answer
        except TimeoutError:
            return Answer(b"", text.attempts, out_of_time(limit_s, text.error))
        finally:
            if text.alone is not None:
                text.alone.cancel()  # without effect on one that is answered

    async def aclose(self) -> None:
        """Abort the requests in flight."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        while not self._closed and self._in_flight < REQUESTS_MAX and (batch := self._next()):
            self._in_flight += 1
            task = asyncio.get_running_loop().create_task(self._ask(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> _Batch | None:
        """What to ask now: what was asked before, then the lane whose oldest text is the oldest."""
        while self._again:
            batch = self._again.popleft().waiting()
            if batch.texts:
                return batch
        now = asyncio.get_running_loop().time()
        due = [lane for lane in self._lanes.values() if lane.due(self._node, now)]
        if not due:
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.texts}
            return None
        texts = min(due, key=lambda lane: lane.texts[0].arrived).take(self._node)
        return self._batch(texts, self._node.attempts_max)

    def _batch(self, texts: list[Text], doubted_max: int) -> _Batch:
        return _Batch(texts, Tries(self._node.attempts_max, doubted_max))

    async def _ask(self, batch: _Batch) -> None:
        try:
            self._settle(batch, await self._tried(batch))
        finally:
            self._in_flight -= 1
            self._pump()

    async def _tried(self, batch: _Batch) -> Attempt | None:
        """What the request came to; None when it took too long for several texts."""
        texts, limit_s = batch.texts, None
        if len(texts) > 1:
            limit_s = (min(t.end for t in texts) - asyncio.get_running_loop().time()) / 2
        else:
            texts[0].alone = asyncio.current_task()
        for text in texts:
            text.attempts += 1
        body = embeddings.request(self._node.spec.model, [t.content.decode() for t in texts])
        headers = {**headers_of(texts), ATTEMPT: str(batch.tries.made + 1)}
        try:
            async with asyncio.timeout(limit_s):
                return await attempt(self._post, self._node.spec.path, body, headers)
        except TimeoutError:
            return None

    def _settle(self, batch: _Batch, tried: Attempt | None) -> None:
        if tried is None:
            self._halve(batch)
        elif tried.verdict is not Verdict.OK:
            self._failed(batch, tried)
        else:
            self._place(batch, tried)

    def _place(self, batch: _Batch, tried: Attempt) -> None:
        model, dim = self._node.spec.model, getattr(self._node.spec, "dim", 0)
        try:
            slots = embeddings.read(model, tried.body, len(batch.texts))
        except PoolError as nonsense:
            self._failed(batch, Attempt(Verdict.DOUBTFUL, error=nonsense))
            return
        slots = embeddings.of_one_size(slots, self._sizes, dim)
        for text, slot in zip(batch.texts, slots, strict=True):
            if isinstance(slot, bytes) or len(batch.texts) == 1:
                text.ended(slot)
            else:
                text.error = slot
                self._again.append(self._batch([text], self._node.attempts_max))

    def _failed(self, batch: _Batch, tried: Attempt) -> None:
        """Ask again, or in halves, or give up; after a pause where that may help."""
        assert tried.error is not None
        batch = batch._replace(tries=batch.tries.after(tried)).waiting()
        verdict, more = tried.verdict, batch.tries.more(tried.verdict)
        pause_s = 0.0
        if verdict.may_pass:
            pause_s = batch.tries.pause_s(tried, random.random())  # noqa: S311
        end = asyncio.get_running_loop().time() + pause_s
        last = not more and (len(batch.texts) == 1 or not verdict.may_be_the_content)
        for text in batch.texts:
            text.error = tried.error
            # With no time for another attempt, this one's answer says more than a timeout would.
            if last or text.end <= end:
                text.ended(tried.error)
        if pause_s:
            asyncio.get_running_loop().call_later(pause_s, self._resume, batch, more)
        else:
            self._resume(batch, more)

    def _resume(self, batch: _Batch, more: bool) -> None:
        if more:
            self._again.append(batch)
        else:
            self._halve(batch)
        self._pump()

    def _halve(self, batch: _Batch) -> None:
        texts = batch.waiting().texts
        middle = (len(texts) + 1) // 2
        for half in (texts[:middle], texts[middle:]):
            if half:
                self._again.append(
                    self._batch(half, self._node.attempts_max if len(half) == 1 else 1)
                )
