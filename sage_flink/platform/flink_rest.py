"""Client of Flink's REST API: the part of it that sage uses.

Source: https://nightlies.apache.org/flink/flink-docs-release-2.3/docs/ops/rest_api/
"""

import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Self

import httpx
import msgspec
import tenacity

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.common.http_clients import httpx_options

ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})
ELECTION_MAX_S = 30.0


class FlinkJob(msgspec.Struct, frozen=True):
    """One job in the cluster's list. Times are milliseconds since the epoch."""

    id: str
    name: str
    state: str
    started_ms: int
    duration_ms: int
    restarts: int = 0


class FlinkRest:
    """Client of one cluster's REST endpoint.

    A request that arrives while the JobManagers elect a leader is sent again for at most
    ``ELECTION_MAX_S`` seconds: Flink answers it with 503 and has not handled it. Every method
    raises StackError where the cluster does not answer.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=timeout_s, **httpx_options(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def jobs(self) -> list[FlinkJob]:
        """All jobs that the cluster knows, newest first."""
        found = [
            FlinkJob(j["jid"], j["name"], j["state"], j["start-time"], j["duration"])
            for j in self._get("/jobs/overview")["jobs"]
        ]
        return sorted(found, key=lambda job: -job.started_ms)

    def job(self, id_or_name: str) -> FlinkJob:
        """The newest job with this id or name.

        Raises:
            ConfigError: there is no such job; the message lists the jobs of the cluster.
            StackError: the cluster does not answer.
        """
        jobs = self.jobs()
        for job in jobs:
            if id_or_name in (job.id, job.name):
                return job
        known = ", ".join(dict.fromkeys(job.name for job in jobs)) or "none"
        raise ConfigError(f"no job {id_or_name!r} on {self.url}; its jobs: {known}")

    def running(self, name: str) -> FlinkJob | None:
        """The job with this name that has not ended; None when there is no such job."""
        return next((j for j in self.jobs() if j.name == name and j.state not in ENDED), None)

    def config(self) -> dict[str, str]:
        """The cluster's own configuration, as flat keys."""
        return {entry["key"]: entry["value"] for entry in self._get("/jobmanager/config")}

    def jar_names(self) -> set[str]:
        """The file names of the jars in the JobManager's own class path."""
        return {PurePath(path).name for path in self._get("/jobmanager/environment")["classpath"]}

    def drain(self, job_id: str, *, target: str = "", timeout_s: float = 120.0) -> None:
        """Stop the job after it has written everything it read: sources end, calls finish.

        No record that was read is lost. A new job of the same consumer group may read again the
        records after the last checkpoint, since a draining source does not commit its last
        offsets. Flink writes the state to the folder ``target``; no job can start from it, because
        its sources have ended.

        Raises:
            StackError: it has not ended after ``timeout_s`` seconds; it still runs.
        """
        self._send("POST", f"/jobs/{job_id}/stop", _stop_request(target, drain=True))
        self._wait_ended(job_id, timeout_s)

    def stop(
        self,
        job_id: str,
        *,
        target: str = "",
        timeout_s: float = 600.0,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> str:
        """Stop the job with a savepoint in the folder ``target``, and return the savepoint's URI.

        An empty ``target`` means the cluster's folder. Records in flight are part of the
        savepoint; transactions are committed. ``on_progress`` gets the seconds so far as text.

        Raises:
            StackError: the savepoint failed (with Flink's reason) or took too long; the job may
                still run.
        """
        began = time.monotonic()
        request = _stop_request(target, drain=False)
        trigger = self._send("POST", f"/jobs/{job_id}/stop", request).json()
        path = f"/jobs/{job_id}/savepoints/{trigger['request-id']}"
        while (answer := self._get(path))["status"]["id"] != "COMPLETED":
            seconds = time.monotonic() - began
            if seconds > timeout_s:
                raise StackError(f"job {job_id}: no savepoint in {timeout_s:g} s; see {self.url}")
            on_progress(f"{seconds:.0f} s")
            time.sleep(0.2)
        operation = answer["operation"]
        if "location" not in operation:
            raise StackError(
                f"job {job_id}: no savepoint: {_root_cause(operation)}; it may still run"
            )
        self._wait_ended(job_id, timeout_s)
        return str(operation["location"])

    def rescale(self, job_id: str, parallelism: int, *, timeout_s: float = 120.0) -> None:
        """Give every step of the job ``parallelism`` subtasks, from the next checkpoint on.

        Steps that cannot be parallel stay as they are. Needs Flink's adaptive scheduler.

        Raises:
            ConfigError: the cluster has too few slots for it; the job is unchanged.
            StackError: the cluster's scheduler cannot rescale, or it took too long.
        """
        vertices = self.vertices(job_id)
        wanted = {v["id"]: min(parallelism, v["maxParallelism"]) for v in vertices}
        free = self._get("/overview")["slots-available"]
        slots = free + max(v["parallelism"] for v in vertices)
        if parallelism > slots:
            raise ConfigError(
                f"job {job_id}: a parallelism of {parallelism} needs {parallelism} slots, and the "
                f"cluster has {slots} for it; end another job, or add TaskManagers"
            )
        limits = {
            vertex: {"parallelism": {"lowerBound": 1, "upperBound": number}}
            for vertex, number in wanted.items()
        }
        try:
            self._send("PUT", f"/jobs/{job_id}/resource-requirements", limits)
        except StackError as error:
            raise StackError(
                f"{error}; a running job is rescaled by Flink's adaptive scheduler alone "
                "(jobmanager.scheduler: adaptive); else stop it with --savepoint and submit it "
                "again with --from-savepoint and --parallelism"
            ) from error
        deadline = time.monotonic() + timeout_s
        while not self._runs_at(job_id, wanted):
            if time.monotonic() > deadline:
                raise StackError(f"job {job_id}: not rescaled in {timeout_s:g} s; see {self.url}")
            time.sleep(0.2)

    def _runs_at(self, job_id: str, wanted: dict[str, int]) -> bool:
        now = self.vertices(job_id)
        return all(v["tasks"]["RUNNING"] == v["parallelism"] == wanted[v["id"]] for v in now)

    def cancel(self, job_id: str, *, timeout_s: float = 60.0) -> None:
        """Cancel the job and wait until it has ended; records in flight are dropped.

        A job that has ended stays as it is, also one that ends at this moment.

        Raises:
            StackError: it has not ended after ``timeout_s`` seconds.
        """
        try:
            self._send("PATCH", f"/jobs/{job_id}")
        except StackError:
            if self._get(f"/jobs/{job_id}")["state"] not in ENDED:
                raise
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
        """Whether every subtask runs, so that records flow from the sources to the sinks."""
        return all(v["tasks"]["RUNNING"] == v["parallelism"] for v in self.vertices(job_id))

    def checkpoints(self, job_id: str) -> dict[str, Any]:
        """Counts, summary and latest of the job's checkpoints; durations in milliseconds."""
        found: dict[str, Any] = self._get(f"/jobs/{job_id}/checkpoints")
        return found

    def checkpoint_of(self, job_id: str, number: int) -> dict[str, dict[str, int]]:
        """Phases of one checkpoint by operator: milliseconds of the slowest subtask.

        ``start_delay`` lasts until the first barrier arrives, ``alignment`` until the last one;
        ``sync`` and ``async`` write the state. Flink keeps the last ten checkpoints.
        """
        names = {vertex["id"]: vertex["name"] for vertex in self.vertices(job_id)}
        path = f"/jobs/{job_id}/checkpoints/details/{number}"
        found = {}
        for vertex in self._get(path)["tasks"]:
            summary = self._get(f"{path}/subtasks/{vertex}")["summary"]
            found[names[vertex]] = {
                "start_delay": summary["start_delay"]["max"],
                "alignment": summary["alignment"]["duration"]["max"],
                "sync": summary["checkpoint_duration"]["sync"]["max"],
                "async": summary["checkpoint_duration"]["async"]["max"],
            }
        return found

    def accumulators(self, job_id: str) -> dict[str, str]:
        """Accumulators of the job's running or last attempt: their values as text, by name.

        Values of a running job are a few seconds old: two heartbeats and the REST server's cache.
        """
        found = self._get(f"/jobs/{job_id}/accumulators")["user-task-accumulators"]
        return {one["name"]: one["value"] for one in found}

    def parameters(self, job_id: str) -> dict[str, str]:
        """The global job parameters that the job was submitted with."""
        config = self._get(f"/jobs/{job_id}/config").get("execution-config", {})
        return dict(config.get("user-config", {}))

    def restarts(self, job_id: str) -> int:
        """How often the job was restarted after a failure; counts at most the last hundred.

        Read from the exception history, since the metric ``numRestarts`` is up to ten seconds old.
        """
        return len(self.exceptions(job_id))

    def exceptions(self, job_id: str) -> list[dict[str, Any]]:
        """The exceptions that restarted or ended the job, as Flink has them, at most a hundred."""
        path = f"/jobs/{job_id}/exceptions?maxExceptions=100"
        found: list[dict[str, Any]] = self._get(path)["exceptionHistory"]["entries"]
        return found

    def _get(self, path: str) -> Any:
        return self._send("GET", path).json()

    def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            response = _until_a_leader_answers(self._client.request, method, path, json=body)
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


def _has_no_leader(response: httpx.Response) -> bool:
    return response.status_code == 503 and "leader election" in response.text


def _last_response(attempt: tenacity.RetryCallState) -> httpx.Response:
    response: httpx.Response = attempt.outcome.result()  # type: ignore[union-attr]
    return response


_until_a_leader_answers = tenacity.Retrying(
    retry=tenacity.retry_if_result(_has_no_leader),
    wait=tenacity.wait_fixed(0.5),
    stop=tenacity.stop_after_delay(ELECTION_MAX_S),
    retry_error_callback=_last_response,
)


def _stop_request(target: str, *, drain: bool) -> dict[str, Any]:
    return {"drain": drain, **({"targetDirectory": target} if target else {})}


def _root_cause(operation: Any) -> str:
    """The innermost line of a Java exception's text."""
    text = operation.get("failure-cause", {}).get("stack-trace", "") or str(operation)
    causes = [line for line in text.splitlines() if line.startswith("Caused by: ")]
    return (causes[-1].removeprefix("Caused by: ") if causes else text.splitlines()[0])[:500]
