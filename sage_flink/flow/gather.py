"""Texts of any records in flight, gathered into embedding requests.

A request goes out when enough texts wait (by count or size) or the oldest has lingered, and fewer
than REQUESTS_MAX are in flight: while the pool is busy texts go on gathering, so requests fill
under load and stay small in a trickle. Tenants and priorities never share a request.

No text harms its neighbours. A request of several texts that is refused, keeps failing, or takes
half of the time that its texts have left, is halved, until the guilty text stands alone. A half
of what kept failing is asked once, so a text meets at most ``attempts_max + log2(items_max)``
failing requests; where the pool is away altogether that is what the search costs.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sage_flink.common.errors import PoolError, SageError
from sage_flink.flow import embeddings
from sage_flink.flow.attempts import Attempt, Post, attempt, backoff_s, out_of_time
from sage_flink.flow.graph import PRIORITIES, Call

#: Gathered requests in flight of one call.
REQUESTS_MAX = 4
BYTES_A_TOKEN = 4

TENANT, PRIORITY, DEADLINE = "x-sage-tenant", "x-sage-priority", "x-sage-deadline-ms"


class Answer(NamedTuple):
    """How a call ended, after how many requests; ok exactly when ``error`` is None."""

    body: bytes
    attempts: int
    error: SageError | None = None


@dataclass(slots=True, eq=False)
class _Text:
    """A text on its way. ``end`` is when its time is over, by the loop's clock."""

    content: str
    bytes: int
    headers: Mapping[str, str]
    arrived: float
    end: float
    answer: "asyncio.Future[Answer]"
    attempts: int = 0
    error: SageError | None = None
    #: The request that holds this text and no other.
    alone: "asyncio.Task[None] | None" = None


class _Batch(NamedTuple):
    """Texts that go into one request, and how often that has failed."""

    texts: list[_Text]
    failures: int = 0


@dataclass(slots=True)
class _Group:
    """The waiting texts of one tenant and priority."""

    texts: deque[_Text] = field(default_factory=deque)
    bytes: int = 0

    def full(self, node: Call) -> bool:
        tokens = self.bytes / BYTES_A_TOKEN
        return len(self.texts) >= node.items_max or tokens >= node.tokens_max

    def take(self, node: Call) -> list[_Text]:
        """The oldest texts that fit one request; a single larger one goes alone."""
        taken: list[_Text] = []
        room = node.tokens_max * BYTES_A_TOKEN
        while self.texts and len(taken) < node.items_max:
            room -= self.texts[0].bytes
            if taken and room < 0:
                break
            taken.append(self.texts.popleft())
            self.bytes -= taken[-1].bytes
        return taken


class Gather:
    """The embedding requests of one call. Lives on one event loop."""

    def __init__(self, node: Call, post: Post) -> None:
        self._node = node
        self._post = post
        self._groups: dict[tuple[int, str], _Group] = {}
        self._ready: deque[_Batch] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._closed = False

    async def answer(self, content: bytes, headers: Mapping[str, str], limit_s: float) -> Answer:
        """The vector of one text, or why there is none, within ``limit_s``."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        text = _Text(
            content.decode(), len(content), headers, now, now + limit_s, loop.create_future()
        )
        rank = PRIORITIES.index(headers.get(PRIORITY, self._node.priority))
        group = self._groups.setdefault((rank, headers.get(TENANT, "")), _Group())
        group.texts.append(text)
        group.bytes += text.bytes
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
        """What to ask now: what was asked before goes first, then the most urgent group."""
        while self._ready:
            batch = _waiting(self._ready.popleft())
            if batch.texts:
                return batch
        for key in sorted(self._groups):
            group = self._groups[key]
            if due := self._due(group):
                return due
            if not group.texts:
                del self._groups[key]
        return None

    def _due(self, group: _Group) -> _Batch | None:
        while group.texts and group.texts[0].answer.done():
            group.bytes -= group.texts.popleft().bytes
        now = asyncio.get_running_loop().time()
        if not group.texts:
            return None
        if not group.full(self._node) and now < group.texts[0].arrived + self._node.linger_s:
            return None
        return _Batch([text for text in group.take(self._node) if not text.answer.done()])

    async def _ask(self, batch: _Batch) -> None:
        try:
            self._settle(batch, await self._tried(batch.texts))
        finally:
            self._in_flight -= 1
            self._pump()

    async def _tried(self, texts: list[_Text]) -> Attempt:
        limit_s = None
        if len(texts) > 1:
            limit_s = (min(t.end for t in texts) - asyncio.get_running_loop().time()) / 2
        else:
            texts[0].alone = asyncio.current_task()
        for text in texts:
            text.attempts += 1
        body = embeddings.request(self._node.spec.model, [text.content for text in texts])
        try:
            async with asyncio.timeout(limit_s):
                return await attempt(self._post, self._node.spec.path, body, _headers(texts))
        except TimeoutError:
            return Attempt(error=out_of_time(limit_s or 0, None))

    def _settle(self, batch: _Batch, tried: Attempt) -> None:
        error = tried.error
        if error is None:
            try:
                slots = embeddings.read(self._node.spec.model, tried.body, len(batch.texts))
            except PoolError as nonsense:
                error = nonsense
            else:
                for text, slot in zip(batch.texts, slots, strict=True):
                    _end(text, slot)
                return
        for text in batch.texts:
            text.error = error
        self._again(batch, tried, error)

    def _again(self, batch: _Batch, tried: Attempt, error: SageError) -> None:
        """Ask again, or in halves, or give up: what failed, after a pause where that may help."""
        last = self._node.attempts_max - 1
        retried = tried.passing and batch.failures < last
        if len(batch.texts) == 1 and not retried:
            _end(batch.texts[0], error)
            return
        pause_s = 0.0
        if tried.passing:
            pause_s = backoff_s(batch.failures + 1, tried.retry_after_s, random.random())  # noqa: S311
        batch = _in_time(batch, pause_s, error)
        if retried:
            self._later(pause_s, batch._replace(failures=batch.failures + 1))
            return
        middle = (len(batch.texts) + 1) // 2
        for half in (batch.texts[:middle], batch.texts[middle:]):
            self._later(pause_s, batch._replace(texts=half))

    def _later(self, pause_s: float, batch: _Batch) -> None:
        def ready() -> None:
            self._ready.append(batch)
            self._pump()

        if batch.texts and pause_s:
            asyncio.get_running_loop().call_later(pause_s, ready)
        elif batch.texts:
            self._ready.append(batch)  # whoever settles pumps next


def _waiting(batch: _Batch) -> _Batch:
    return batch._replace(texts=[text for text in batch.texts if not text.answer.done()])


def _in_time(batch: _Batch, pause_s: float, error: SageError) -> _Batch:
    """The texts that have time for a pause; of the others ``error`` says more than a timeout."""
    resumed = asyncio.get_running_loop().time() + pause_s
    for text in batch.texts:
        if text.end <= resumed:
            _end(text, error)
    return _waiting(batch)


def _end(text: _Text, outcome: bytes | SageError) -> None:
    if text.answer.done():
        return
    if isinstance(outcome, bytes):
        text.answer.set_result(Answer(outcome, text.attempts))
    else:
        text.answer.set_result(Answer(b"", text.attempts, outcome))


def _headers(texts: list[_Text]) -> dict[str, str]:
    """What its texts have in common; its deadline is the last of theirs.

    No request id: a gathered request is never the same again, and a vector costs little.
    """
    one = texts[0].headers
    deadlines = [text.headers[DEADLINE] for text in texts if DEADLINE in text.headers]
    named = {name: one[name] for name in (TENANT, PRIORITY) if name in one}
    return {**named, DEADLINE: max(deadlines, key=int)} if deadlines else named
