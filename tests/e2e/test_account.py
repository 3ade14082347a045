"""Record accounting on the local stack: exact after a kill, kept after the end, in InfluxDB.

The pool is an HTTP server in this process, slow enough that calls are in flight at the kill.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from loopback_server import loopback_server
from waiting import wait_until

import sage_flink as sage
from sage_connectors import kafka
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_flink.common import Record, Settings, StackError, sage_home
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.operators import DecodeDocument, chunk, measure
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.job_accounting import job_balance

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.alone,
    pytest.mark.timeout(400),
    # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DOCUMENTS, BAD_EVERY, POISON_EVERY = 1_200, 40, 60
SLOW_S = 2.0  # for each of 900 requests, 8 of them at a time: calls are in flight for 225 s
CHECKPOINT_MAX_S = 60  # without buffer debloating a barrier waits behind most of these requests
SPLIT = chunk(tokens_max=40, overlap=0)


class Pool(BaseHTTPRequestHandler):
    """Embeds all texts except poison, which it refuses; it is slow until ``fast`` is set."""

    protocol_version = "HTTP/1.1"
    fast = threading.Event()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.fast.wait(SLOW_S)
        refused = any("poison" in text for text in request["input"])
        vector = base64.b64encode(bytes(8)).decode()
        rows = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, _ in enumerate(request["input"])
        ]
        body = {"error": {"message": "poison"}} if refused else {"object": "list", "data": rows}
        payload = json.dumps(body).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        """Log no request."""


@pytest.fixture(scope="module")
def pool():
    with loopback_server(Pool) as port:
        yield f"http://127.0.0.1:{port}"


def messages():
    for n in range(DOCUMENTS):
        words = [f"Sentence {s} of document {n}." for s in range(3 * (n % 5 + 1))]
        words += ["poison"] * (n % POISON_EVERY == 1)
        document = {"id": f"d/{n}", "title": f"Document {n}", "text": "\n\n".join(words)}
        yield f"d/{n}".encode(), b"{" if n % BAD_EVERY == 0 else json.dumps(document).encode()


@pytest.fixture(scope="module")
def expected_counts():
    """The counts of each step, computed by running the steps in process."""
    records = [Record(id=str(n), value=v, key=k) for n, (k, v) in enumerate(messages())]
    read = sage.flow.read("in", ListSource(tuple(records)))
    graph = read.flat_map("decode", DecodeDocument()).flat_map("split", SPLIT)
    outcome = asyncio.run(sage.flow.run(graph.write("out", ListSink())))
    chunks = outcome.written["out"]
    poisoned = sum("poison" in record.value["text"] for record in chunks)
    bad = len(outcome.failed)
    deletes = DOCUMENTS - bad  # one after the chunks of each document, up to `measure`
    made, points = len(chunks) + deletes, len(chunks) - poisoned
    good = points + deletes
    # read, emitted, written, dead-lettered
    return {
        "documents": (DOCUMENTS, DOCUMENTS, None, None),
        "decode": (DOCUMENTS, DOCUMENTS - bad, None, bad),
        "split": (DOCUMENTS - bad, made, None, 0),
        "embed": (made, good, None, poisoned),
        "measure": (good, points, None, 0),
        "points.batch": (points, points, None, None),
        "points": (points, None, points, 0),
        "copy": (DOCUMENTS, None, DOCUMENTS, 0),
        "dead-letters": (bad + poisoned, None, bad + poisoned, None),
    }


def build(name, bounded):
    documents = sage.flow.read(
        "documents", kafka(f"{name}.in", group=name, start="earliest", bounded=bounded)
    )
    points = (
        documents.flat_map("decode", DecodeDocument())
        .flat_map("split", SPLIT)
        .call(
            "embed",
            sage.embed(model="any"),
            capacity=32,
            timeout_s=30,
            batching=sage.flow.Batching(4),
        )
        .flat_map("measure", measure("chunks", fields=("text",)))
        .write("points", sage.tsdb.bucket(name))
    )
    copy = documents.write("copy", kafka(f"{name}.out"))
    return sage.flow.pipeline(points, copy).dead_letters_to(kafka(f"{name}.dead"))


def counts_of(balance):
    return {r.step: (r.read, r.emitted, r.written, r.dead_lettered) for r in balance.rows}


def kill_taskmanager():
    java = [p for p in stack.processes(sage_home(), "taskmanager") if "java" in p.name()]
    os.kill(java[0].pid, signal.SIGKILL)


def command(*words):
    done = subprocess.run(
        [Path(sys.executable).with_name("sage"), "jobs", "account", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def name():
    made = f"account{uuid.uuid4().hex[:8]}"
    yield made
    opened = sage.tsdb.bucket(made).open()
    opened.drop("chunks")
    opened.close()
    for topic in ("in", "out", "dead"):
        delete_topic(f"{made}.{topic}")


@pytest.fixture(scope="module")
def job(name, pool):
    settings = Settings.load().model_copy(update={"gateway_url": pool})
    with FlinkRest(settings.flink_url) as rest:
        options = sage.flow.FlinkOptions(checkpoint_interval_s=1)
        graph = build(name, bounded=False)
        job_id = sage.flow.submit(graph, name=name, settings=settings, options=options)
        wait_until(lambda: rest.all_tasks_running(job_id), 120, "the job's tasks run")
        yield rest, job_id
        if rest.running(name):
            rest.cancel(job_id)


def test_a_killed_taskmanager_leaves_every_count_exact(job, name, expected_counts, capsys):
    rest, job_id = job
    feed(f"{name}.in", messages())
    before = wait_until(lambda: balance_with_calls(rest, job_id), 120, "some points are written")
    checkpoint_ms = rest.checkpoints(job_id)["summary"]["end_to_end_duration"]["max"]

    kill_taskmanager()
    Pool.fast.set()
    wait_until(lambda: rest.restarts(job_id) >= 1, 120, "the job starts again")
    wait_until(lambda: read_so_far(rest, job_id) == DOCUMENTS, 240, "all is read")
    after = job_balance(rest, rest.job(job_id), wait_s=60)

    with capsys.disabled():
        print(f"\nslowest checkpoint among slow calls {checkpoint_ms} ms")
        print(f"before the kill {counts_of(before)}, {before.in_flight} in flight")
        print(f"in the end {counts_of(after)}")
    assert before.gaps == after.gaps == ()
    assert before.in_flight > 0
    assert 0 < checkpoint_ms < CHECKPOINT_MAX_S * 1_000
    assert 0 < counts_of(before)["points"][2] < expected_counts["points"][2]
    assert counts_of(after) == expected_counts
    assert len(list(drain(f"{name}.dead"))) == expected_counts["dead-letters"][0]
    assert len(list(drain(f"{name}.out"))) == DOCUMENTS


def balance_with_calls(rest, job_id):
    """The counts of a checkpoint after the first points were written, with calls in flight."""
    now = balance_so_far(rest, job_id)
    return now if now and now.in_flight and counts_of(now)["points"][2] else None


def read_so_far(rest, job_id):
    now = balance_so_far(rest, job_id)
    return counts_of(now)["documents"][0] if now else -1


def balance_so_far(rest, job_id):
    try:
        return job_balance(rest, rest.job(job_id))
    except StackError:
        return None  # it starts or restarts


def test_the_command_prints_the_record_accounting_of_a_running_job(job, name, expected_counts):
    status, payload = command(name, "--json")

    told = json.loads(payload)
    assert (status, told["balanced"], told["state"]) == (0, True, "RUNNING")
    assert {row["step"]: row["read"] for row in told["steps"]} == {
        step: counts[0] for step, counts in expected_counts.items()
    }


def test_the_record_accounting_stays_after_the_job_has_stopped(job, name, expected_counts):
    rest, job_id = job
    rest.drain(job_id)

    status, payload = command(job_id)

    assert status == 0, payload
    assert f"the record counts of {name} (FINISHED) are balanced" in payload
    assert counts_of(job_balance(rest, rest.job(job_id))) == expected_counts


@pytest.fixture(scope="module")
def bounded_job(name, pool):
    """A bounded job over the same topic, which has ended."""
    settings = Settings.load().model_copy(update={"gateway_url": pool})
    with FlinkRest(settings.flink_url) as rest:
        job_id = sage.flow.submit(
            build(name, bounded=True), name=f"{name}-bounded", settings=settings
        )
        wait_until(lambda: rest.job(job_id).state == "FINISHED", 180, "the job ends")
        yield rest, job_id


def test_influxdb_holds_the_last_counts_of_a_job_that_ended(bounded_job, name, expected_counts):
    rest, job_id = bounded_job

    assert counts_of(job_balance(rest, rest.job(job_id))) == expected_counts
    for what, place in (("read", 0), ("emitted", 1), ("written", 2), ("dead_lettered", 3)):
        found = last_points(f"taskmanager_job_task_operator_step_{what}", f"{name}-bounded")
        wanted = {step: counts[place] for step, counts in expected_counts.items()}
        assert found == {
            step: count
            for step, count in wanted.items()
            if count is not None and (what, step) != ("emitted", "points.batch")
        }


def last_points(measurement, job_name):
    settings = Settings.load()
    flux = (
        'from(bucket: "flink") |> range(start: -1h) '
        f'|> filter(fn: (r) => r._measurement == "{measurement}" and r.job_name == "{job_name}") '
        '|> last() |> keep(columns: ["step", "_value"])'
    )
    answer = httpx.post(
        f"{settings.influxdb_url}/api/v2/query",
        params={"org": settings.influxdb_org},
        headers={
            "Authorization": f"Token {settings.secret('influxdb')}",
            "Content-Type": "application/vnd.flux",
        },
        content=flux,
        verify=False,
    )
    rows = (line.split(",") for line in answer.raise_for_status().text.split("\r\n"))
    return {row[4]: int(row[3]) for row in rows if len(row) == 5 and row[2].isdigit()}
