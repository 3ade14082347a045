"""Requests of real clients at a constant rate, and what became of each of them."""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

CHAT = "/v1/chat/completions"
PAUSE_S = 0.05
UNANSWERED = 0
#: What a client that is patient asks again after: no answer, or one that says "later".
AGAIN = (UNANSWERED, 503)

#: The n-th request, and whether there is another one after so many.
Ask = Callable[[int], Awaitable["Turn"]]
More = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: when it began on the monotonic clock, how long it took, and its last answer.

    ``status`` is ``UNANSWERED`` where none came; ``mark`` is its ``x-sage-ledger``.
    """

    id_: str
    words: str
    begun_s: float
    took_s: float
    status: int
    body: bytes
    retry_after: str
    mark: str
    tries: int

    @property
    def page(self) -> dict[str, Any]:
        """The body of an answer."""
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    @property
    def right(self) -> bool:
        """Whether it is the answer to these words."""
        verb, _, rest = self.words.partition(" ")
        text = self.page["choices"][0]["message"]["content"]
        return bool(text == (rest if verb == "echo" else verb))

    @property
    def tokens(self) -> int:
        """What it cost, as its answer says."""
        used: int = self.page["usage"]["total_tokens"] if self.status == 200 else 0
        return used


class Caller:
    """Clients with one key, each of which knows every address of the pool.

    They ask once; with ``patience_s`` they go on for so long under the same id, at one address
    after the other, and as late as they are told to.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        key: str,
        *,
        patience_s: float = 0.0,
    ) -> None:
        self._session = session
        self._urls = urls
        self._key = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._patience_s = patience_s
        self._turns = itertools.count()

    async def ask(self, words: str, id_: str = "") -> Turn:
        """What the fake engine answers to ``words``."""
        id_ = id_ or uuid.uuid4().hex
        begun_s, first = time.monotonic(), next(self._turns)
        for tries in itertools.count(1):
            url = self._urls[(first + tries) % len(self._urls)]
            found = await self._once(url, words, id_)
            took_s = time.monotonic() - begun_s
            if found[0] not in AGAIN or took_s > self._patience_s:
                return Turn(id_, words, begun_s, took_s, *found, tries)
            await asyncio.sleep(float(found[2] or PAUSE_S))
        raise AssertionError("it counts for ever")

    async def _once(self, url: str, words: str, id_: str) -> tuple[int, bytes, str, str]:
        headers = {**self._key, "idempotency-key": id_}
        try:
            async with self._session.post(url + CHAT, data=chat(words), headers=headers) as answer:
                body, told = await answer.read(), answer.headers
                marks = told.get("retry-after", ""), told.get("x-sage-ledger", "")
                return answer.status, body, *marks
        except (aiohttp.ClientError, TimeoutError):
            return UNANSWERED, b"", "", ""


def chat(words: str, **more: Any) -> bytes:
    """A body."""
    messages = [{"role": "user", "content": words}]
    return orjson.dumps({"model": "talk", "messages": messages, "max_tokens": 2, **more})


def work(n: int) -> str:
    """The n-th of many questions: half of them take a while, and half tell themselves apart."""
    return f"echo {n}" if n % 2 else "sleep 0.1"


@asynccontextmanager
async def client_session() -> AsyncIterator[aiohttp.ClientSession]:
    """As many connections as are wanted; none is kept for longer than a server does."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    limit = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        yield session


async def open_loop(ask: Ask, *, rate_per_s: float, more: More) -> list[Turn]:
    """One request every ``1 / rate_per_s`` seconds, whatever became of those before."""
    began_s = time.monotonic()
    asked: list[asyncio.Task[Turn]] = []
    while more(len(asked)):
        await asyncio.sleep(began_s + len(asked) / rate_per_s - time.monotonic())
        asked.append(asyncio.ensure_future(ask(len(asked))))
    return await asyncio.gather(*asked)


async def closed_loop(ask: Ask, *, callers: int, more: More) -> list[Turn]:
    """So many callers, each of whom asks again when it was answered."""
    numbers, turns = itertools.count(), []

    async def call() -> None:
        while more(n := next(numbers)):
            turns.append(await ask(n))

    await asyncio.gather(*(call() for _ in range(callers)))
    return turns


def p99_ms(turns: Sequence[Turn]) -> float | None:
    """Of those that were answered with 200; None where there are none."""
    took = sorted(turn.took_s for turn in turns if turn.status == 200)
    return round(took[-1 - len(took) // 100] * 1000, 1) if took else None
