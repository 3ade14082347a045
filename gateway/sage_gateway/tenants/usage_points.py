"""Usage as points in the time-series store: by tenant, key, model and job, from the settled rows.

A point is the day's sum so far, at the beginning of a minute; a day that is over has one at its
last minute. So to write one again, after a crash or by two gateways, changes nothing, and a point
that was lost is made good by the next: nothing is ever added up twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from sage_flink.common import StoreUnavailable
from sage_flink.tsdb import Field, Point
from sage_gateway.tenants.store_protocol import Charge
from sage_gateway.tenants.tenants import Tenants

log = logging.getLogger("sage.gateway")

MEASUREMENT = "pool_usage"
EVERY_S = 60.0
MINUTE_S = 60


def usage_points(charges: Iterable[Charge], now_s: float) -> list[Point]:
    """A point for each of ``charges``, which are sums of days; none is later than ``now_s``."""
    return [_point(one, now_s) for one in charges]


class UsagePoints:
    """Hands on what changed, every ``every_s``; ``open`` on the loop that serves."""

    def __init__(
        self,
        tenants: Tenants,
        add: Callable[[Iterable[Point]], None],
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenants = tenants
        self._add = add
        self._every_s = every_s
        self._clock = clock
        self._told: frozenset[Charge] = frozenset()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="usage points")

    async def close(self) -> None:
        """Hand on what is left; to be called while the tenants' store is open."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.tell()

    async def tell(self) -> None:
        """Hand on the sums of today and yesterday that are not as they were last told."""
        now_s = self._clock()
        try:
            await self._tenants.flush()
            found = await self._tenants.store.usage(_day(now_s - 86_400), _day(now_s))
        except StoreUnavailable as error:
            log.warning("usage is told later: %s", error)
            return
        new = [one for one in found if one not in self._told]
        self._told = frozenset(found)
        self._add(usage_points(new, now_s))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.tell()


def _point(one: Charge, now_s: float) -> Point:
    row = one.row
    tags = {"tenant": row.tenant, "key": row.key, "model": row.model, "job": row.job}
    fields: dict[str, Field] = {
        "requests": one.requests,
        "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
    }
    over_s = _last_minute_s(row.day)
    at_s = min(over_s, int(now_s) // MINUTE_S * MINUTE_S)
    return Point(MEASUREMENT, tags, fields, at_s * 1_000_000_000)


def _last_minute_s(day: int) -> int:
    midnight = datetime.strptime(str(day), "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
    return int(midnight.timestamp()) - MINUTE_S


def _day(now_s: float) -> int:
    return int(f"{datetime.fromtimestamp(now_s, UTC):%Y%m%d}")
