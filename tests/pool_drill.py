"""A drill of the model pool: a constant load, a fault in the middle of it, and the account.

Engines and gateways are real processes; no part of the stack is needed.
"""

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from gateway_process import KEY, gateway_process
from open_load import CHAT, UNANSWERED, Caller, Turn, open_loop, p99_ms, work
from redis_server import redis_server
from waiting import wait_until

SAMPLE_S = 0.05
TAIL_S = 1.5
RECOVERED_S = 60.0
LEASE_S = 2.0
#: A hung engine is doubted as by default, and given up sooner, so that a short drill sees its end.
HEALTH = {"timeout_s": 1.0}
PAIR = {"talk": {"engine": "fake", "kind": "chat", "replicas": 2, "health": HEALTH}}
#: More than any drill spends; a key with a budget is charged exactly, one without within a second.
PLENTY = {"tokens_per_month": 10**9}
NOBODY: dict[str, Any] = {"state": "gone", "doubted": True, "in_flight": 0}
ADMIN = {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True, slots=True)
class Gateway:
    """One that runs, its admin's client, and a key of its own with an account of its own."""

    process: "subprocess.Popen[bytes]"
    admin: httpx.Client
    key: str
    key_id: str

    @property
    def url(self) -> str:
        return str(self.admin.base_url).rstrip("/")

    @property
    def port(self) -> int:
        return self.admin.base_url.port or 0

    def pids(self) -> set[int]:
        """The processes of its engines."""
        return {one["pid"] for one in self.replicas()}

    def replicas(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.admin.get("/pool/replicas").json()["data"]
        return found

    def knows(self, key: str) -> bool:
        """Whether it lets this key in."""
        headers = {"authorization": f"Bearer {key}"}
        return self.admin.post(CHAT, headers=headers).status_code != 401

    def charged(self, what: str = "requests") -> int:
        """How much the account of the key says."""
        return charged(self.admin, self.key_id, what)


@contextmanager
def pool(home: Path, models: dict[str, Any] = PAIR, **rest: Any) -> Iterator[Gateway]:
    """A gateway, all of whose replicas are ready."""
    with gateway_process(home, models, **rest) as (process, admin):
        key = made_key(admin)
        found = Gateway(process, admin, key["key"], key["id"])
        wait_until(lambda: _all_ready(found), 60, "all replicas")
        yield found


@contextmanager
def two_gateways(folder: Path) -> Iterator[tuple[Gateway, Gateway, Callable[[], Gateway]]]:
    """Two that share a Redis, each with engines of its own, and what starts the first one again."""
    homes = [folder / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(redis_server(folder))
        shared = {"ledger": {"store": "redis", "url": url, "lease_s": LEASE_S}}
        one, two = (stack.enter_context(pool(home, **shared)) for home in homes)
        again = pool(homes[0], port=one.port, **shared)
        yield one, two, lambda: stack.enter_context(again)


def made_key(admin: httpx.Client, **limits: int) -> dict[str, Any]:
    """A new key with a budget."""
    answer = admin.post("/pool/keys", json={"tenant": "drill", "limits": limits or PLENTY})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def charged(admin: httpx.Client, key_id: str, what: str = "requests") -> int:
    """What the account of a key says, from any gateway that shares it."""
    lines = admin.get("/v1/usage").json()["data"]
    return sum(line[what] for line in lines if line["key"] == key_id)


class Watch:
    """What ``GET path`` of a gateway says, every ``SAMPLE_S``, with its time."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, list[dict[str, Any]]]] = []

    @property
    def now(self) -> list[dict[str, Any]]:
        return self.samples[-1][1]

    def ready(self) -> set[int]:
        """The processes of the replicas that are ready."""
        return {one["pid"] for one in self.now if one["state"] == "ready"}

    def ejected_s(self, pid: int, since_s: float) -> float:
        """Seconds until the replica of that process is sent no more requests, for good.

        It is then not ready, or not trusted, and has no more of them in flight than before.
        """
        out_s, in_flight = float("inf"), 0
        for at_s, replicas in self.samples:
            if at_s < since_s:
                continue
            one = next((one for one in replicas if one["pid"] == pid), NOBODY)
            chosen = one["state"] == "ready" and not one["doubted"]
            chosen = chosen or one["in_flight"] > in_flight
            out_s = float("inf") if chosen else min(out_s, at_s)
            in_flight = one["in_flight"]
        return round(out_s - since_s, 2)


@asynccontextmanager
async def watched(
    session: aiohttp.ClientSession, url: str, path: str = "/pool/replicas"
) -> AsyncIterator[Watch]:
    """Samples from the first one on until the end of the block."""
    watch = Watch()

    async def sample() -> None:
        while True:
            async with session.get(url + path, headers=ADMIN) as answer:
                watch.samples.append((time.monotonic(), (await answer.json())["data"]))
            await asyncio.sleep(SAMPLE_S)

    sampling = asyncio.create_task(sample())
    try:
        await until(lambda: bool(watch.samples) or sampling.done(), 10)
        yield watch
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All requests, and the time between fault and recovery."""

    turns: list[Turn]
    fault_s: float
    well_s: float

    @property
    def failures(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.status != 200]

    def row(self, charged: int, **more: Any) -> dict[str, Any]:
        """The account; ``charged``: how many answers the pool was paid for."""
        good = [turn for turn in self.turns if turn.status == 200]
        before = [turn for turn in self.turns if turn.begun_s + turn.took_s < self.fault_s]
        after = [turn for turn in self.turns if turn.begun_s > self.well_s]
        during = set(self.turns) - set(before) - set(after)
        return {
            **counts(self.turns, charged),
            "failures": len(self.turns) - len(good),
            "statuses": dict(Counter(str(turn.status) for turn in self.turns)),
            **more,
            "p99_before_ms": p99_ms(before),
            "p99_during_ms": p99_ms(list(during)),
            "p99_after_ms": p99_ms(after),
        }


def counts(turns: Sequence[Turn], charged: int) -> dict[str, int]:
    """As drills count: of ``ids`` ids, without an answer, paid for again, answered wrongly."""
    good = [turn for turn in turns if turn.status == 200]
    return {
        "ids": len(turns),
        "lost": sum(turn.status == UNANSWERED for turn in turns),
        "duplicated": charged - len({turn.id_ for turn in good}),
        "wrong": sum(not turn.right for turn in good),
    }


async def under_load(
    caller: Caller,
    fault: Callable[[], Awaitable[object]],
    *,
    ids: int,
    rate_per_s: float,
    moment: float,
) -> Outcome:
    """``fault``, begun when the part ``moment`` of the ids is asked, returns when all is well.

    The load goes on for ``TAIL_S`` after it, or until so many ids are asked.
    """
    begun_s = ended_s = float("inf")

    async def broken() -> None:
        nonlocal begun_s, ended_s
        await asyncio.sleep(moment * ids / rate_per_s)
        begun_s = time.monotonic()
        try:
            await fault()
        finally:
            ended_s = time.monotonic()

    breaking = asyncio.create_task(broken())
    turns = await open_loop(
        lambda n: caller.ask(work(n)),
        rate_per_s=rate_per_s,
        more=lambda n: n < ids or time.monotonic() < ended_s + TAIL_S,
    )
    await breaking
    return Outcome(turns, begun_s, ended_s)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when it is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what another process does
            await asyncio.sleep(0.01)


async def replaced(watch: Watch, pid: int, signal_number: int) -> None:
    """Send the signal to an engine, and return when another is ready in its place."""
    os.kill(pid, signal_number)
    await until(lambda: len(watch.ready() - {pid}) == 2, RECOVERED_S)


def _all_ready(gateway: Gateway) -> bool:
    return all(one["state"] == "ready" for one in gateway.replicas())
