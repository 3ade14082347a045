"""Usage as points in the time-series store, by tenant, key, model and job.

A point is the sum of its day so far, at the start of a minute; a past day has one at its last
minute. So writing a point again, after a crash or by two gateways, changes no sum, and the next
point replaces one that was lost.
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
    """A point for each of ``charges``, which are sums of days; not later than ``now_s``."""
    return [_point(charge, now_s) for charge in charges]


class UsagePoints:
    """Adds the changed sums every ``every_s``; ``open`` on the loop that serves."""

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
        self._reported: frozenset[Charge] = frozenset()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._run(), name="usage points")

    async def close(self) -> None:
        """Report the last changes; call it before the tenants' store is closed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.report()

    async def report(self) -> None:
        """Add the sums of today and yesterday that changed since the last report."""
        now_s = self._clock()
        try:
            await self._tenants.flush()
            found = await self._tenants.store.usage(_day(now_s - 86_400), _day(now_s))
        except StoreUnavailable as error:
            log.warning("usage is reported later: %s", error)
            return
        changed = [charge for charge in found if charge not in self._reported]
        self._reported = frozenset(found)
        self._add(usage_points(changed, now_s))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.report()


def _point(charge: Charge, now_s: float) -> Point:
    row = charge.row
    tags = {"tenant": row.tenant, "key": row.key, "model": row.model, "job": row.job}
    fields: dict[str, Field] = {
        "requests": charge.requests,
        "prompt_tokens": charge.prompt_tokens,
        "completion_tokens": charge.completion_tokens,
    }
    last_s = _last_minute_s(row.day)
    at_s = min(last_s, int(now_s) // MINUTE_S * MINUTE_S)
    return Point(MEASUREMENT, tags, fields, at_s * 1_000_000_000)


def _last_minute_s(day: int) -> int:
    midnight = datetime.strptime(str(day), "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
    return int(midnight.timestamp()) - MINUTE_S


def _day(now_s: float) -> int:
    return int(f"{datetime.fromtimestamp(now_s, UTC):%Y%m%d}")
