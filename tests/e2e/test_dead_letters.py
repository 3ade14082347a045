"""Dead letters of a job without a model, replayed by the command line once the model runs.

One job serves the whole module, so the tests depend on their order: its calls fail, the dead
letters are listed, replays are interrupted, one completes, and then no dead letter is open.
"""

import json
import os
import re
import socket
import subprocess
import sys
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from waiting import wait_until

from sage_connectors.dead_letters import read_dead_letters
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_flink.common import Settings, StackError, derived_id
from sage_flink.platform.flink_rest import FlinkRest

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.alone,
    pytest.mark.timeout(420),
]

QUESTIONS, BROKEN, CAPACITY = 24, 2, 4
PIPELINE = """
steps:
  - {{read: in, from: {{kafka: {{topic: {name}.in, group: {name}}}}}}}
  - {{flat_map: decode, input: in, with: decode_question}}
  - call: say
    input: decode
    to: {{chat: {{model: late}}}}
    capacity: 4
    timeout_s: 60
  - {{flat_map: json, input: say, with: encode_json}}
  - {{write: out, input: json, into: {{kafka: {{topic: {name}.out}}}}}}
  - {{flat_map: copy, input: decode, with: encode_json}}
  - {{write: asked, input: copy, into: {{kafka: {{topic: {name}.asked}}}}}}
dead_letters: {{kafka: {{topic: {name}.dead-letters}}}}
"""


@dataclass(frozen=True)
class Job:
    """A job in YAML and its topics."""

    name: str
    path: Path

    def sage(self, *words, **env):
        done = self.start(*words, **env)
        out, err = done.communicate(timeout=300)
        assert done.returncode == 0, out + err
        return out

    def start(self, *words, **env):
        return subprocess.Popen(
            [Path(sys.executable).parent / "sage", *map(str, words)],
            env={**os.environ, "COLUMNS": "80", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def topic(self, which):
        return f"{self.name}.{which}"

    def open(self, step):
        topic = read_dead_letters(self.topic("dead-letters"))
        return [letter for letter in topic.open if letter.step == step]

    def out(self):
        return list(drain(self.topic("out")))


@pytest.fixture(scope="module")
def settings():
    return Settings.load()


@pytest.fixture(scope="module")
def rest(settings):
    with FlinkRest(settings.flink_url) as rest:
        yield rest


@pytest.fixture(scope="module")
def job(tmp_path_factory, rest):
    name = f"t{uuid.uuid4().hex[:10]}"
    path = tmp_path_factory.mktemp("dlq") / f"{name}.yaml"
    path.write_text(PIPELINE.format(name=name))
    job = Job(name, path)
    job.sage("jobs", "submit", path)
    yield job
    for running in (name, f"{name}.replay"):
        if found := rest.running(running):
            rest.cancel(found.id)
    for which in ("in", "out", "asked", "dead-letters"):
        delete_topic(job.topic(which))


@pytest.fixture
def model():
    """A server with the model; it answers once :func:`release` is called."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "sage_gateway.engines.serve_fake"
    command = [sys.executable, "-m", module, "--port", str(port), "--alias", "late"]
    with subprocess.Popen(command) as server:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_up(url), 30, "the model's server")
        yield url
        server.kill()


def is_up(url):
    try:
        return httpx.get(f"{url}/health", verify=False).status_code == 200
    except httpx.TransportError:
        return False


def model_stats(model):
    return httpx.get(f"{model}/seen", verify=False).json()


def release(model):
    httpx.get(f"{model}/release/answers", verify=False)


def asks_flink(process, settings):
    """Whether the process has a connection to Flink's REST endpoint."""
    port = httpx.URL(settings.flink_url).port
    sockets = psutil.Process(process.pid).net_connections("tcp")
    return any(one.raddr and one.raddr.port == port for one in sockets)


def total_of(table):
    return int(table.splitlines()[-1].split()[0])


def question(number):
    messages = [{"role": "user", "content": "hold answers"}]
    value = {"id": f"q{number}", "question": "?", "messages": messages}
    return f"k{number}".encode(), json.dumps(value).encode(), {"tenant": b"a\xff"}, 1_000 + number


def test_dead_letters_are_listed_filtered_and_shown(job):
    feed(job.topic("in"), [question(n) for n in range(QUESTIONS)])
    feed(job.topic("in"), [(b"x", b'{"id": ')] * BROKEN)
    wait_until(lambda: len(job.open("say")) == QUESTIONS, 120, "a dead letter for each question")
    wait_until(lambda: len(job.open("decode")) == BROKEN, 60, "a dead letter for each broken one")

    table = job.sage("dlq", "list", job.path)
    listed = json.loads(
        job.sage("dlq", "list", job.path, "--step", "say", "--since", "1h", "--json")
    )
    shown = job.sage("dlq", "show", job.topic("dead-letters"), "q7")

    assert max(map(len, table.splitlines())) <= 80
    assert re.search(f"^{QUESTIONS} +say +", table, re.MULTILINE)
    assert total_of(table) == QUESTIONS + BROKEN
    assert {letter["id"] for letter in listed} == {f"q{n}" for n in range(QUESTIONS)}
    assert {letter["job"] for letter in listed} == {job.name}
    assert '"question": "?"' in shown
    assert "to replay: 24 at step 'say'" in job.sage("dlq", "replay", job.path, "--dry-run")


@pytest.mark.parametrize("requests", [CAPACITY, pytest.param(QUESTIONS, marks=pytest.mark.full)])
def test_an_interrupted_replay_is_written_completely_or_not_at_all(job, model, rest, requests):
    """Interrupted while it sends requests, and again after the last request."""
    if not job.open("say"):
        return
    cli = job.start("dlq", "replay", job.path, "--step", "say", "--yes", SAGE_GATEWAY_URL=model)
    wait_until(lambda: model_stats(model)["requests"] >= CAPACITY, 180, "requests are sent")
    if requests > CAPACITY:
        release(model)
        wait_until(lambda: model_stats(model)["requests"] >= requests, 60, "all requests are sent")

    cli.kill()
    cli.communicate()
    with suppress(StackError):  # it has ended already
        rest.cancel(rest.job(f"{job.name}.replay").id)

    assert len(job.out()) + len(job.open("say")) == QUESTIONS
    assert len(job.out()) in (0, QUESTIONS)


def test_a_command_waits_for_the_replay_of_a_killed_one(job, model, settings):
    replay = "dlq", "replay", job.path, "--step", "say", "--yes"
    cli = job.start(*replay, SAGE_GATEWAY_URL=model)
    wait_until(lambda: model_stats(model)["requests"] > 0, 180, "the replay runs")
    cli.kill()
    cli.communicate()

    next_one = job.start(*replay, SAGE_GATEWAY_URL=model)
    wait_until(lambda: asks_flink(next_one, settings), 60, "the command asks for replays that run")
    release(model)
    output, errors = next_one.communicate(timeout=300)

    assert next_one.returncode == 0, errors
    assert "nothing to replay" in output
    assert sorted(record.key.decode() for record in job.out()) == sorted(
        f"q{n}" for n in range(QUESTIONS)
    )
    assert {(r.headers["tenant"], r.timestamp_ms >= 1_000) for r in job.out()} == {(b"a\xff", True)}
    expected_ids = {derived_id(f"q{n}", f"{job.name}/say", 0) for n in range(QUESTIONS)}
    assert {k.lower(): v for k, v in model_stats(model)["headers"].items()}[
        "x-request-id"
    ] in expected_ids


def test_a_replay_does_not_run_steps_on_other_branches(job):
    assert len(list(drain(job.topic("asked")))) == QUESTIONS


def test_a_record_that_fails_again_is_a_new_dead_letter_and_the_old_one_is_hidden(job, capsys):
    output = job.sage("dlq", "replay", job.path, "--yes")
    again = job.open("decode")

    assert f"replayed {BROKEN} dead letters; failed again: {BROKEN}" in output
    assert len(again) == BROKEN
    assert {letter.run for letter in again} == {f"{job.name}.replay"}
    assert {letter.job for letter in again} == {job.name}
    assert total_of(job.sage("dlq", "list", job.path)) == BROKEN
    every = job.sage("dlq", "list", job.path, "--all")
    assert total_of(every) == QUESTIONS + 2 * BROKEN
    with capsys.disabled():
        print(f"\n{output}\n{every}")
