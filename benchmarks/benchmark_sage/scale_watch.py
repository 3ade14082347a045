"""Client of the stack's gateway for the scale benchmark: sends requests and records its state."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import aiohttp

STEP_S, SAMPLE_S, TOKENS_MAX = 180.0, 0.5, 24


class PoolSample(NamedTuple):
    """The gateway's state of the model at ``at_s`` seconds since the start."""

    at_s: float
    wanted: int
    ready: int
    waiting: int
    wait_ms_p99: float
    cause: str


def without_repeats(counts: Sequence[int]) -> list[int]:
    """The counts without consecutive repeats.

    >>> without_repeats([1, 1, 2, 3, 3, 1, 0, 1])
    [1, 2, 3, 1, 0, 1]
    """
    return [count for i, count in enumerate(counts) if not i or count != counts[i - 1]]


class ModelClient:
    """Client of the stack's gateway for one model."""

    def __init__(self, session: aiohttp.ClientSession, model: str) -> None:
        self._session = session
        self._model = model
        self.samples: list[PoolSample] = []
        self.statuses: list[int] = []

    async def get(self, path: str) -> list[dict[str, Any]]:
        """The entries of the list at ``path``."""
        async with self._session.get(path) as answer:
            answer.raise_for_status()
            found: list[dict[str, Any]] = (await answer.json())["data"]
            return found

    async def decisions(self, since_s: float) -> list[dict[str, Any]]:
        """Scaling decisions about the model since ``since_s`` (of the epoch), newest first."""
        decisions = await self.get(f"/pool/decisions?model={self._model}")
        return [one for one in decisions if one["since"] >= since_s]

    async def put(self, spec: dict[str, Any]) -> None:
        """Add the model to the pool."""
        async with self._session.put(f"/pool/models/{self._model}", json=spec) as answer:
            answer.raise_for_status()

    async def delete(self) -> None:
        """Remove the model from the pool."""
        async with self._session.delete(f"/pool/models/{self._model}") as answer:
            await answer.read()

    async def ask(self, text: str) -> None:
        """Send one chat request and record its status."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": TOKENS_MAX,
        }
        async with self._session.post("/v1/chat/completions", json=body) as answer:
            await answer.read()
            self.statuses.append(answer.status)

    async def watch(self) -> None:
        """Take samples until cancelled."""
        began_s = time.monotonic()
        while True:
            (model,) = [one for one in await self.get("/pool/models") if one["id"] == self._model]
            decisions = await self.get(f"/pool/decisions?model={self._model}&limit=1")
            inputs = decisions[0]["inputs"] if decisions else {}
            waits = (inputs.get(n, 0.0) for n in ("queue_wait_ms_p99", "queue_oldest_ms"))
            self.samples.append(
                PoolSample(
                    round(time.monotonic() - began_s, 2),
                    model["wanted"],
                    model["ready"],
                    model["waiting"],
                    round(max(waits), 1),
                    decisions[0]["cause"] if decisions else "",
                )
            )
            await asyncio.sleep(SAMPLE_S)

    async def until(self, wanted: Callable[[PoolSample], bool]) -> None:
        """Return when ``wanted`` is true of the latest sample.

        Raises:
            TimeoutError: it was not within ``STEP_S``.
        """
        async with asyncio.timeout(STEP_S):
            while not self.samples or not wanted(self.samples[-1]):  # noqa: ASYNC110 - samples
                await asyncio.sleep(SAMPLE_S / 2)

    @contextlib.asynccontextmanager
    async def callers(self, count: int, pause_s: float = 0.0) -> AsyncIterator[None]:
        """``count`` callers that send one request after the other until the block ends."""
        over = asyncio.Event()

        async def call(number: int) -> None:
            while not over.is_set():
                await self.ask(f"Tell me about the number {number}.")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), pause_s)

        tasks = [asyncio.create_task(call(number)) for number in range(count)]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*tasks)
