"""The status of Flink jobs from Flink's REST API: operators and lag.

Read periodically by a task of its own: a decision uses the last result and never waits. The lag is
the sources' metric ``pendingRecords``, so that no Kafka client is needed.

Source: https://nightlies.apache.org/flink/flink-docs-release-2.3/docs/ops/rest_api/
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import msgspec

from sage_flink.platform.record_accounting import STEPS, decode_steps
from sage_gateway.autoscaling.streams import JobStatus, Operator

BUSY, BACKPRESSURED, LAG = "busyTimeMsPerSecond", "backPressuredTimeMsPerSecond", ".pendingRecords"
TIMEOUT_S = 5.0
#: Flink's metrics are up to 10 s old; a slope over less is noise.
SLOPE_S = 30.0
NO_CALLS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Vertex:
    """A task of a job. ``lag``: the names of its sources' lag metrics, if they have them."""

    id: str
    name: str
    inputs: tuple[str, ...]
    calls: bool
    lag: tuple[str, ...] = ()


@dataclass(slots=True)
class JobHistory:
    """The tasks of a job, and its lag over the last ``SLOPE_S``."""

    vertices: tuple[Vertex, ...]
    lags: list[tuple[float, float]] = field(default_factory=list)


class FlinkJobs:
    """One cluster's running jobs, at ``url``."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._known: dict[str, JobHistory] = {}

    async def read(self, names: frozenset[str], now_s: float) -> dict[str, JobStatus]:
        """The running jobs of these names.

        Raises:
            OSError: the cluster does not answer (also aiohttp.ClientError, TimeoutError).
            ValueError: its response has another schema (also LookupError, TypeError).
        """
        limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=limit) as session:
            listed = (await self._get(session, "/jobs/overview"))["jobs"]
            running = {j["jid"]: j["name"] for j in listed if j["state"] == "RUNNING"}
            wanted = {jid: name for jid, name in running.items() if name in names}
            self._known = {jid: k for jid, k in self._known.items() if jid in wanted}
            return {
                name: await self._job(session, jid, name, now_s) for jid, name in wanted.items()
            }

    async def _job(
        self, session: aiohttp.ClientSession, jid: str, name: str, now_s: float
    ) -> JobStatus:
        known = self._known.get(jid)
        if known is None or not any(vertex.lag for vertex in known.vertices):
            lags = known.lags if known else []
            known = self._known[jid] = JobHistory(await self._vertices(session, jid), lags)
        metrics = {v.id: await self._metrics(session, jid, v) for v in known.vertices}
        lag = sum(metrics[v.id].get(one, 0.0) for v in known.vertices for one in v.lag)
        if any(vertex.lag for vertex in known.vertices):
            known.lags.append((now_s, lag))
        known.lags = [one for one in known.lags if one[0] >= now_s - SLOPE_S]
        names = {v.id: v.name for v in known.vertices}
        operators = tuple(operator(v, metrics[v.id], names) for v in known.vertices)
        return JobStatus(name, int(lag), slope(known.lags), operators)

    async def _vertices(self, session: aiohttp.ClientSession, jid: str) -> tuple[Vertex, ...]:
        page = await self._get(session, f"/jobs/{jid}")
        config = await self._get(session, f"/jobs/{jid}/config")
        user = config.get("execution-config", {}).get("user-config", {})
        found = vertices(page, calls_of(user))
        return tuple([await self._with_lag(session, jid, v) for v in found])

    async def _with_lag(self, session: aiohttp.ClientSession, jid: str, vertex: Vertex) -> Vertex:
        if vertex.inputs:
            return vertex
        listed = await self._get(session, f"/jobs/{jid}/vertices/{vertex.id}/subtasks/metrics")
        lag = tuple(one["id"] for one in listed if one["id"].endswith(LAG))
        return replace(vertex, lag=lag)

    async def _metrics(
        self, session: aiohttp.ClientSession, jid: str, vertex: Vertex
    ) -> Mapping[str, float]:
        path = f"/jobs/{jid}/vertices/{vertex.id}/subtasks/metrics"
        times = await self._get(session, path, get=f"{BUSY},{BACKPRESSURED}", agg="max")
        lags: list[Any] = []
        if vertex.lag:
            lags = await self._get(session, path, get=",".join(vertex.lag), agg="sum")
        found = {one["id"]: float(one["max"]) for one in times}
        found |= {one["id"]: float(one["sum"]) for one in lags}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    async def _get(self, session: aiohttp.ClientSession, path: str, **query: str) -> Any:
        url = self._url + path
        async with session.get(url, params=query, allow_redirects=False) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read())


def calls_of(parameters: Mapping[str, str]) -> frozenset[str]:
    """The names of the steps that call the pool, from a job's global parameters."""
    text = parameters.get(STEPS)
    return (
        frozenset(step.name for step in decode_steps(text) if step.kind == "call")
        if text
        else NO_CALLS
    )


def vertices(page: Any, calls: frozenset[str]) -> tuple[Vertex, ...]:
    """The tasks in ``/jobs/ID``; a chain as ``Source: read -> split`` is all of its steps."""
    inputs = {
        node["id"]: tuple(one["id"] for one in node.get("inputs", ()))
        for node in page["plan"]["nodes"]
    }
    return tuple(
        Vertex(one["id"], one["name"], inputs.get(one["id"], ()), bool(calls & _chain(one["name"])))
        for one in page["vertices"]
    )


def operator(vertex: Vertex, metrics: Mapping[str, float], names: Mapping[str, str]) -> Operator:
    """The operator of a task; ``names``: the names of all tasks, by id."""
    return Operator(
        name=vertex.name,
        busy=metrics.get(BUSY, 0.0) / 1000,
        backpressured=metrics.get(BACKPRESSURED, 0.0) / 1000,
        inputs=tuple(names[one] for one in vertex.inputs),
        calls=vertex.calls,
    )


def slope(lags: Sequence[tuple[float, float]]) -> float:
    """How fast the lag grows, per second, from the first to the last (time, lag); 0 without one.

    >>> slope([(0.0, 100.0), (5.0, 90.0), (20.0, 200.0)])
    5.0
    """
    if not lags:
        return 0.0
    (first_s, before), (last_s, after) = lags[0], lags[-1]
    return (after - before) / (last_s - first_s) if last_s > first_s else 0.0


def _chain(name: str) -> frozenset[str]:
    return frozenset(part.strip() for part in re.split(r" -> |[(),]", name))
