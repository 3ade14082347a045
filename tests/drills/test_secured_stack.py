"""kill -9 of the TaskManager, twice, while a job runs on a stack with TLS and passwords."""

import httpx
import pytest

from benchmark_sage.recovery.cluster import until
from benchmark_sage.recovery.exposure import exposures
from sage_flink.common import Settings
from sage_flink.platform.stack.flink import jobs_to_continue
from sage_flink.platform.stack.server import trusting
from sage_flink.platform.stack.stack_directory import StackDirectory

KILLS = 2


@pytest.fixture
def secured(cluster):
    """The drills' stack, which is open, secured for one test."""
    cluster.down()
    cluster.up(secured=True)
    try:
        yield cluster
    finally:
        cluster.down()
        cluster.up(secured=False)


def test_a_secured_stack_loses_no_record_and_shows_no_secret(secured, run):
    found, notes = [], {}

    def kill_twice(running):
        rest, job = running.rest, running.job_id
        for number in range(1, KILLS + 1):
            running.cluster.kill("taskmanager", "java")
            until(lambda n=number: rest.restarts(job) >= n, 60, "the job restarts")
            until(lambda: rest.all_tasks_running(job), 60, "the job's tasks run")
        trigger_savepoint(rest.url, job)
        until(lambda: points_of(secured, running.work.name) > 0, 60, "Flink reports to InfluxDB")
        notes["points"] = points_of(secured, running.work.name)
        notes["jobs"] = jobs_to_continue(StackDirectory.at(secured.home))
        found.extend(exposures(secured, rest, job))

    outcome = run(kill_twice, name="secured_stack", raw=[("not an event", b"\xff")])

    assert outcome.is_balanced, outcome
    assert (outcome.answers.lost, outcome.answers.duplicated) == (0, 0)
    assert outcome.restarts >= KILLS
    assert len(outcome.dead_letters) == 1
    assert notes["points"] > 0
    assert notes["jobs"] == 1  # one that would prevent a change of mode
    assert found == []


def trigger_savepoint(flink_url, job):
    with httpx.Client(base_url=flink_url, trust_env=False) as client:
        made = client.post(f"/jobs/{job}/savepoints", json={"cancel-job": False}).json()
        status = f"/jobs/{job}/savepoints/{made['request-id']}"
        until(lambda: client.get(status).json()["status"]["id"] == "COMPLETED", 60, "a savepoint")


def points_of(cluster, job):
    """How many points Flink's own reporter has written about the job."""
    settings = Settings.load()
    flux = (
        f'from(bucket: "flink") |> range(start: -1h) |> filter(fn: (r) => r.job_name == "{job}")'
        " |> group() |> count()"
    )
    answer = httpx.post(
        f"{settings.influxdb_url}/api/v2/query",
        params={"org": settings.influxdb_org},
        content=flux,
        headers={
            "Authorization": f"Token {settings.secret('influxdb')}",
            "Content-Type": "application/vnd.flux",
        },
        verify=trusting(cluster.home / "keys" / "tls" / "ca.pem"),
    )
    rows = [line.rsplit(",", 1)[-1] for line in answer.raise_for_status().text.split()[1:]]
    return sum(int(row) for row in rows if row.isdecimal())
