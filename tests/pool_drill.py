"""Drill of the model pool: a constant load, a fault in the middle of it, and counts at the end.

Engines and gateways are real processes; the local stack is not needed.
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
from open_load import CHAT, UNANSWERED, Caller, ClientCall, open_loop, p99_ms, work
from redis_server import redis_server
from waiting import wait_until

SAMPLE_S = 0.05
TAIL_S = 1.5
RECOVERED_S = 60.0
LEASE_S = 2.0
#: A hung engine is restarted earlier than by default, so that even a short drill includes it.
HEALTH = {"timeout_s": 1.0}
PAIR = {"talk": {"engine": "fake", "kind": "chat", "replicas": 2, "health": HEALTH}}
#: More than any drill spends. A key with a budget is charged immediately, others within a second.
LARGE_BUDGET = {"tokens_per_month": 10**9}
MISSING: dict[str, Any] = {"state": "ended", "doubted": True, "in_flight": 0}
ADMIN = {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True, slots=True)
class PoolGateway:
    """A running gateway, a client with its admin key, and a new key for the load."""

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

    def release(self, name: str) -> None:
        """Let the engines answer the requests with the script ``hold NAME``."""
        for one in self.replicas():
            httpx.get(f"{one['url']}/release/{name}", timeout=20, verify=False).raise_for_status()

    def knows(self, key: str) -> bool:
        """Whether the gateway accepts this key."""
        headers = {"authorization": f"Bearer {key}"}
        return self.admin.post(CHAT, headers=headers).status_code != 401

    def charged_usage(self, what: str = "requests") -> int:
        """The recorded usage of the key."""
        return usage_of(self.admin, self.key_id, what)


@contextmanager
def pool(home: Path, models: dict[str, Any] = PAIR, **rest: Any) -> Iterator[PoolGateway]:
    """A gateway with all replicas ready."""
    with gateway_process(home, models, **rest) as (process, admin):
        key = create_key(admin)
        found = PoolGateway(process, admin, key["key"], key["id"])
        wait_until(lambda: _all_ready(found), 60, "all replicas")
        yield found


@contextmanager
def two_gateways(
    folder: Path,
) -> Iterator[tuple[PoolGateway, PoolGateway, Callable[[], PoolGateway]]]:
    """Two gateways with their own engines and a shared Redis, and a restart of the first one."""
    homes = [folder / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(redis_server(folder))
        options = {"ledger": {"store": "redis", "url": url, "lease_s": LEASE_S}}
        one, two = (stack.enter_context(pool(home, **options)) for home in homes)
        restarted = pool(homes[0], port=one.port, **options)
        yield one, two, lambda: stack.enter_context(restarted)


def create_key(admin: httpx.Client, **limits: int) -> dict[str, Any]:
    """Create a key with a budget."""
    answer = admin.post("/pool/keys", json={"tenant": "drill", "limits": limits or LARGE_BUDGET})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def usage_of(admin: httpx.Client, key_id: str, what: str = "requests") -> int:
    """The recorded usage of a key, from any gateway that shares the store."""
    lines = admin.get("/v1/usage").json()["data"]
    return sum(line[what] for line in lines if line["key"] == key_id)


class PoolWatch:
    """Samples of a gateway's ``GET path``, one every ``SAMPLE_S``, with their times."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, list[dict[str, Any]]]] = []

    @property
    def now(self) -> list[dict[str, Any]]:
        return self.samples[-1][1]

    def ready(self) -> set[int]:
        """The processes of the replicas that are ready."""
        return {one["pid"] for one in self.now if one["state"] == "ready"}

    def ejected_s(self, pid: int, since_s: float) -> float:
        """Seconds until the replica of that process permanently gets no more requests.

        From then on it is not ready or is doubted, and its requests in flight do not increase.
        """
        out_s, in_flight = float("inf"), 0
        for at_s, replicas in self.samples:
            if at_s < since_s:
                continue
            one = next((one for one in replicas if one["pid"] == pid), MISSING)
            chosen = one["state"] == "ready" and not one["doubted"]
            chosen = chosen or one["in_flight"] > in_flight
            out_s = float("inf") if chosen else min(out_s, at_s)
            in_flight = one["in_flight"]
        return round(out_s - since_s, 2)


@asynccontextmanager
async def watch_pool(
    session: aiohttp.ClientSession, url: str, path: str = "/pool/replicas"
) -> AsyncIterator[PoolWatch]:
    """Sample from before the start of the block until its end."""
    watch = PoolWatch()

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
class LoadOutcome:
    """All calls of a drill, and the times of fault and recovery."""

    calls: list[ClientCall]
    fault_s: float
    recovered_s: float

    @property
    def failures(self) -> list[ClientCall]:
        return [call for call in self.calls if call.status != 200]

    def row(self, charged: int, **more: Any) -> dict[str, Any]:
        """The drill's row; ``charged`` is the number of answers that the pool charged."""
        good = [call for call in self.calls if call.status == 200]
        before = [call for call in self.calls if call.started_s + call.took_s < self.fault_s]
        after = [call for call in self.calls if call.started_s > self.recovered_s]
        during = set(self.calls) - set(before) - set(after)
        return {
            **counts(self.calls, charged),
            "failures": len(self.calls) - len(good),
            "statuses": dict(Counter(str(call.status) for call in self.calls)),
            **more,
            "p99_before_ms": p99_ms(before),
            "p99_during_ms": p99_ms(list(during)),
            "p99_after_ms": p99_ms(after),
        }


def counts(calls: Sequence[ClientCall], charged: int) -> dict[str, int]:
    """The counts of a drill: calls, and those unanswered, charged twice or answered wrongly."""
    good = [call for call in calls if call.status == 200]
    return {
        "ids": len(calls),
        "lost": sum(call.status == UNANSWERED for call in calls),
        "duplicated": charged - len({call.id_ for call in good}),
        "wrong": sum(not call.correct for call in good),
    }


async def under_load(
    caller: Caller,
    fault: Callable[[], Awaitable[object]],
    *,
    ids: int,
    rate_per_s: float,
    moment: float,
) -> LoadOutcome:
    """Apply a load and inject ``fault`` after the fraction ``moment`` of the ids.

    ``fault`` returns after the recovery. The load continues for ``TAIL_S`` after that, and at least
    until ``ids`` ids are sent.
    """
    started_s = ended_s = float("inf")

    async def inject() -> None:
        nonlocal started_s, ended_s
        await asyncio.sleep(moment * ids / rate_per_s)
        started_s = time.monotonic()
        try:
            await fault()
        finally:
            ended_s = time.monotonic()

    injection = asyncio.create_task(inject())
    calls = await open_loop(
        lambda n: caller.ask(work(n)),
        rate_per_s=rate_per_s,
        more=lambda n: n < ids or time.monotonic() < ended_s + TAIL_S,
    )
    await injection
    return LoadOutcome(calls, started_s, ended_s)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when ``condition`` is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.01)


async def replace_engine(watch: PoolWatch, pid: int, signal_number: int) -> None:
    """Send the signal to an engine, and return when another engine has replaced it."""
    os.kill(pid, signal_number)
    await until(lambda: len(watch.ready() - {pid}) == 2, RECOVERED_S)


def _all_ready(gateway: PoolGateway) -> bool:
    return all(one["state"] == "ready" for one in gateway.replicas())
