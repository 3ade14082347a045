"""kill -9 of the TaskManager, twice, while a job runs on a stack with TLS and passwords.

Kafka demands SASL_SSL with SCRAM, Milvus TLS and a password, InfluxDB TLS and a token; the jobs
reach them by the connections ``kafka``, ``milvus`` and ``influxdb`` of the stack.
"""

import httpx
import pytest

from benchmark_sage.recovery.cluster import until
from benchmark_sage.recovery.exposure import exposures
from sage_connectors.kafka_connection import connection_of
from sage_flink.common import Settings
from sage_flink.platform.flink_rest import ENDED, FlinkRest
from sage_flink.platform.stack.flink import jobs_to_continue
from sage_flink.platform.stack.server import trusting
from sage_flink.platform.stack.stack_directory import StackDirectory

#: Two changes of the stack's mode, two minutes each.
pytestmark = pytest.mark.full
KILLS = 2
NO_DOCUMENT = ("not a document", b"\xff")


@pytest.fixture(scope="module")
def secured(cluster):
    """The drills' stack, which is open, secured for the tests of this file."""
    cancel_jobs()
    cluster.down()
    cluster.up(secured=True)
    try:
        yield cluster
    finally:
        cancel_jobs()
        cluster.down()
        cluster.up(secured=False)


def cancel_jobs():
    """Cancel what an earlier drill has left: a job that continues prevents a change of mode."""
    with FlinkRest(Settings.load().flink_url) as rest:
        for job in rest.jobs():
            if job.state not in ENDED:
                rest.cancel(job.id)


def kill_twice(running):
    """Kill the TaskManager, twice, each time when the job runs."""
    rest, job = running.rest, running.job_id
    for number in range(1, KILLS + 1):
        running.cluster.kill("taskmanager", "java")
        until(lambda n=number: rest.restarts(job) >= n, 60, "the job restarts")
        until(lambda: rest.all_tasks_running(job), 60, "the job's tasks run")


def test_rag_ingest_loses_no_chunk_and_shows_no_secret(secured, ingest):
    found, notes = [], {}

    def search(running):
        trigger_savepoint(running.rest.url, running.job_id)
        until(lambda: points_of(secured, running.name) > 0, 60, "Flink reports to InfluxDB")
        notes["broker"] = connection_of("")
        topics = (running.config.topic, running.config.dead_letters)
        more = {"topics": topics, "printed": running.printed}
        planted = secured.home / "logs" / "planted.log"
        planted.write_bytes((secured.home / "keys" / "kafka").read_bytes())
        notes["planted"] = exposures(secured, running.rest, running.job_id, **more)
        planted.unlink()
        found.extend(exposures(secured, running.rest, running.job_id, **more))

    outcome = ingest(kill_twice, name="secured_rag_ingest", raw=[NO_DOCUMENT], at_end=search)

    assert (notes["broker"].protocol, notes["broker"].mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert notes["planted"] == [f"kafka in {secured.home / 'logs' / 'planted.log'}"]
    assert outcome.chunks.is_balanced, outcome
    assert outcome.chunks.rows == outcome.chunks.ids >= outcome.documents
    assert outcome.points == (0, 0)
    assert outcome.is_accounted
    assert outcome.restarts >= KILLS
    assert outcome.dead_letters == ["decode: not valid UTF-8 at byte 0"]
    assert found == []


def test_a_job_that_writes_to_kafka_loses_no_record_and_shows_no_secret(secured, run):
    found, notes = [], {}

    def kill_and_search(running):
        kill_twice(running)
        rest, job, work = running.rest, running.job_id, running.work
        trigger_savepoint(rest.url, job)
        until(lambda: points_of(secured, work.name) > 0, 60, "Flink reports to InfluxDB")
        notes["points"] = points_of(secured, work.name)
        notes["jobs"] = jobs_to_continue(StackDirectory.at(secured.home))
        topics = (work.topic, work.answers, work.dead_letters)
        found.extend(exposures(secured, rest, job, topics=topics))

    outcome = run(kill_and_search, name="secured_stack", raw=[("not an event", b"\xff")])

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
