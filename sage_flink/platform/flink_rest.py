"""Flink's REST API, as much of it as sage asks for.

Source: https://nightlies.apache.org/flink/flink-docs-release-2.3/docs/ops/rest_api/
"""

import time
from typing import Any, Self

import httpx
import msgspec

from sage_flink.common.errors import ConfigError, StackError

ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})


class Job(msgspec.Struct, frozen=True):
    """One job as the cluster lists it. Times are milliseconds since the epoch."""

    id: str
    name: str
    state: str
    started_ms: int
    duration_ms: int
    restarts: int = 0


class FlinkRest:
    """A client of one cluster's REST endpoint."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def jobs(self) -> list[Job]:
        """All jobs that the cluster knows, newest first.

        Raises:
            StackError: the cluster does not answer.
        """
        found = [
            Job(j["jid"], j["name"], j["state"], j["start-time"], j["duration"])
            for j in self._get("/jobs/overview")["jobs"]
        ]
        return sorted(found, key=lambda job: -job.started_ms)

    def job(self, id_or_name: str) -> Job:
        """The newest job of this id or name.

        Raises:
            ConfigError: there is none; the message lists the jobs there are.
            StackError: the cluster does not answer.
        """
        jobs = self.jobs()
        for job in jobs:
            if id_or_name in (job.id, job.name):
                return job
        known = ", ".join(dict.fromkeys(job.name for job in jobs)) or "none"
        raise ConfigError(f"no job {id_or_name!r} on {self.url}; jobs there: {known}")

    def running(self, name: str) -> Job | None:
        """The job of this name that has not ended."""
        return next((j for j in self.jobs() if j.name == name and j.state not in ENDED), None)

    def drain(self, job_id: str, *, timeout_s: float = 120.0) -> None:
        """Stop the job once all that it has read is written: its sources end, its calls finish.

        Nothing that was read is lost. A new job of the same group may read again what came after
        the last checkpoint, since the last offsets of a draining source are not committed.

        Raises:
            StackError: it has not ended after ``timeout_s`` seconds; it still runs.
        """
        self._send("POST", f"/jobs/{job_id}/stop", {"drain": True})
        self._wait_ended(job_id, timeout_s)

    def cancel(self, job_id: str, *, timeout_s: float = 60.0) -> None:
        """End the job now and wait until it has ended; records in flight are dropped.

        Raises:
            StackError: it has not ended after ``timeout_s`` seconds.
        """
        self._send("PATCH", f"/jobs/{job_id}")
        self._wait_ended(job_id, timeout_s)

    def _wait_ended(self, job_id: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._get(f"/jobs/{job_id}")["state"] not in ENDED:
            if time.monotonic() > deadline:
                raise StackError(f"job {job_id}: not ended after {timeout_s:g} s; see {self.url}")
            time.sleep(0.2)

    def vertices(self, job_id: str) -> list[dict[str, Any]]:
        """The job's tasks, each a chain of operators, with their states and record counts."""
        found: list[dict[str, Any]] = self._get(f"/jobs/{job_id}")["vertices"]
        return found

    def all_tasks_running(self, job_id: str) -> bool:
        """Whether every subtask runs, so that records flow from end to end."""
        return all(v["tasks"]["RUNNING"] == v["parallelism"] for v in self.vertices(job_id))

    def accumulators(self, job_id: str) -> dict[str, str]:
        """What the job's running or last attempt has accumulated: text, by name.

        Of a running job a few seconds old: two heartbeats and the cache of the REST server.
        """
        found = self._get(f"/jobs/{job_id}/accumulators")["user-task-accumulators"]
        return {one["name"]: one["value"] for one in found}

    def parameters(self, job_id: str) -> dict[str, str]:
        """The global job parameters that the job was submitted with."""
        found: dict[str, str] = self._get(f"/jobs/{job_id}/config")["execution-config"][
            "user-config"
        ]
        return found

    def restarts(self, job_id: str) -> int:
        """How many failures the job was restarted after, at most the last hundred.

        From the exception history: the metric ``numRestarts`` is up to ten seconds old.
        """
        history = self._get(f"/jobs/{job_id}/exceptions?maxExceptions=100")["exceptionHistory"]
        return len(history["entries"])

    def _get(self, path: str) -> Any:
        return self._send("GET", path).json()

    def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise StackError(
                f"Flink does not answer at {self.url} ({error}); "
                "see `sage ps`, start with `sage up`"
            ) from error
        if response.status_code >= 400:
            raise StackError(
                f"Flink: {method} {path}: {response.status_code} {response.text[:300]}"
            )
        return response
