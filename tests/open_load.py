"""Load generator of the pool drills: requests at a constant rate, and the result of each."""

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
#: Statuses after which a client with a retry budget retries: no answer, or 503.
AGAIN = (UNANSWERED, 503)

#: Sends the n-th request; whether to send another one after n requests.
Ask = Callable[[int], Awaitable["ClientCall"]]
More = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class ClientCall:
    """One request of a client: its start on the monotonic clock, its duration, and its last answer.

    ``status`` is ``UNANSWERED`` without an answer; ``ledger`` is its header ``x-sage-ledger``.
    """

    id_: str
    prompt: str
    started_s: float
    took_s: float
    status: int
    body: bytes
    retry_after: str
    ledger: str
    tries: int

    @property
    def page(self) -> dict[str, Any]:
        """The decoded body of the answer."""
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    @property
    def correct(self) -> bool:
        """Whether the answer belongs to the prompt."""
        verb, _, rest = self.prompt.partition(" ")
        text = self.page["choices"][0]["message"]["content"]
        return bool(text == (rest if verb == "echo" else verb))

    @property
    def tokens(self) -> int:
        """The tokens in the ``usage`` of the answer."""
        used: int = self.page["usage"]["total_tokens"] if self.status == 200 else 0
        return used


class Caller:
    """Client with one key and all addresses of the pool.

    It sends each request once; with ``retry_for_s`` it retries for that time under the same id, at
    one address after the other, and after the ``Retry-After`` of the last answer.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        key: str,
        *,
        retry_for_s: float = 0.0,
    ) -> None:
        self._session = session
        self._urls = urls
        self._key = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._retry_for_s = retry_for_s
        self._numbers = itertools.count()

    async def ask(self, prompt: str, id_: str = "") -> ClientCall:
        """Send ``prompt`` to the fake engine, and return the call with its answer."""
        id_ = id_ or uuid.uuid4().hex
        started_s, first = time.monotonic(), next(self._numbers)
        for tries in itertools.count(1):
            url = self._urls[(first + tries) % len(self._urls)]
            found = await self._send_once(url, prompt, id_)
            took_s = time.monotonic() - started_s
            if found[0] not in AGAIN or took_s > self._retry_for_s:
                return ClientCall(id_, prompt, started_s, took_s, *found, tries)
            await asyncio.sleep(float(found[2] or PAUSE_S))
        raise AssertionError("itertools.count is endless")

    async def _send_once(self, url: str, prompt: str, id_: str) -> tuple[int, bytes, str, str]:
        headers = {**self._key, "idempotency-key": id_}
        try:
            async with self._session.post(url + CHAT, data=chat(prompt), headers=headers) as answer:
                body, fields = await answer.read(), answer.headers
                after, ledger = fields.get("retry-after", ""), fields.get("x-sage-ledger", "")
                return answer.status, body, after, ledger
        except (aiohttp.ClientError, TimeoutError):
            return UNANSWERED, b"", "", ""


def chat(prompt: str, **more: Any) -> bytes:
    """The body of a chat request."""
    messages = [{"role": "user", "content": prompt}]
    return orjson.dumps({"model": "talk", "messages": messages, "max_tokens": 2, **more})


def work(n: int) -> str:
    """The n-th prompt of a load: half of them take 0.1 s, half have a unique answer."""
    return f"echo {n}" if n % 2 else "sleep 0.1"


@asynccontextmanager
async def client_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session without a connection limit; it drops idle connections before the server does."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    limit = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        yield session


async def open_loop(ask: Ask, *, rate_per_s: float, more: More) -> list[ClientCall]:
    """One request every ``1 / rate_per_s`` seconds, independent of earlier ones."""
    began_s = time.monotonic()
    asked: list[asyncio.Task[ClientCall]] = []
    while more(len(asked)):
        await asyncio.sleep(began_s + len(asked) / rate_per_s - time.monotonic())
        asked.append(asyncio.ensure_future(ask(len(asked))))
    return await asyncio.gather(*asked)


async def closed_loop(ask: Ask, *, callers: int, more: More) -> list[ClientCall]:
    """``callers`` callers, each of which sends its next request after the last answer."""
    numbers, calls = itertools.count(), []

    async def caller() -> None:
        while more(n := next(numbers)):
            calls.append(await ask(n))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return calls


def p99_ms(calls: Sequence[ClientCall]) -> float | None:
    """The p99 latency of the calls answered with 200; None if there is no such call."""
    durations = sorted(call.took_s for call in calls if call.status == 200)
    return round(durations[-1 - len(durations) // 100] * 1000, 1) if durations else None
