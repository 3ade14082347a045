"""Letters of a job whose model is missing, replayed by the command line once it is there.

One job serves the whole module, so the tests build on each other in order: it fails, its letters
are listed, replays are cut off, one ends, and then there is nothing left to replay.
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
import pytest
from waiting import wait_until

from sage_connectors.dead_letters import read_dead_letters
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_flink.common import Settings, StackError, derived_id
from sage_flink.platform.flink_rest import FlinkRest

pytestmark = [pytest.mark.service, pytest.mark.flink, pytest.mark.timeout(420)]

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
    """A job in YAML, and the topics around it."""

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


@pytest.fixture(scope="module")
def model():
    """The server that has the model; it takes half a second for an answer."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "sage_gateway.engines.serve_fake"
    command = [sys.executable, "-m", module, "--port", str(port), "--alias", "late"]
    with subprocess.Popen(command) as server:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: up(url), 30, "the model's server")
        yield url
        server.kill()


def up(url):
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def seen(model):
    return httpx.get(f"{model}/seen").json()


def in_all(table):
    return int(table.splitlines()[-1].split()[0])


def question(number):
    said = [{"role": "user", "content": "sleep 0.5"}]
    value = {"id": f"q{number}", "question": "?", "messages": said}
    return f"k{number}".encode(), json.dumps(value).encode(), {"tenant": b"a\xff"}, 1_000 + number


def test_letters_are_listed_filtered_and_shown(job):
    feed(job.topic("in"), [question(n) for n in range(QUESTIONS)])
    feed(job.topic("in"), [(b"x", b'{"id": ')] * BROKEN)
    wait_until(lambda: len(job.open("say")) == QUESTIONS, 120, "a letter for each question")
    wait_until(lambda: len(job.open("decode")) == BROKEN, 60, "a letter for each broken one")

    table = job.sage("dlq", "list", job.path)
    said = json.loads(job.sage("dlq", "list", job.path, "--step", "say", "--since", "1h", "--json"))
    shown = job.sage("dlq", "show", job.topic("dead-letters"), "q7")

    assert max(map(len, table.splitlines())) <= 80
    assert re.search(f"^{QUESTIONS} +say +", table, re.MULTILINE)
    assert in_all(table) == QUESTIONS + BROKEN
    assert {letter["id"] for letter in said} == {f"q{n}" for n in range(QUESTIONS)}
    assert {letter["job"] for letter in said} == {job.name}
    assert '"question": "?"' in shown
    assert "to replay: 24 at step 'say'" in job.sage("dlq", "replay", job.path, "--dry-run")


@pytest.mark.parametrize("requests", [CAPACITY, QUESTIONS])
def test_a_replay_that_is_cut_off_has_happened_as_a_whole_or_not_at_all(job, model, rest, requests):
    """Cut off while it asks, and again when the last question is asked."""
    before = seen(model)["requests"]
    if not job.open("say"):
        return
    cli = job.start("dlq", "replay", job.path, "--step", "say", "--yes", SAGE_GATEWAY_URL=model)
    wait_until(lambda: seen(model)["requests"] - before >= requests, 180, "questions are asked")

    cli.kill()
    cli.communicate()
    with suppress(StackError):  # it has ended already
        rest.cancel(rest.job(f"{job.name}.replay").id)

    assert len(job.out()) + len(job.open("say")) == QUESTIONS
    assert len(job.out()) in (0, QUESTIONS)


def test_a_replay_whose_command_is_killed_is_waited_for_by_the_next_one(job, model, rest):
    before = seen(model)["requests"]
    cli = job.start("dlq", "replay", job.path, "--step", "say", "--yes", SAGE_GATEWAY_URL=model)
    wait_until(lambda: seen(model)["requests"] > before, 180, "the replay runs")
    cli.kill()
    cli.communicate()

    said = job.sage("dlq", "replay", job.path, "--step", "say", "--yes", SAGE_GATEWAY_URL=model)

    assert "nothing to replay" in said
    assert sorted(record.key.decode() for record in job.out()) == sorted(
        f"q{n}" for n in range(QUESTIONS)
    )
    assert {(r.headers["tenant"], r.timestamp_ms >= 1_000) for r in job.out()} == {(b"a\xff", True)}
    asked = {derived_id(f"q{n}", f"{job.name}/say", 0) for n in range(QUESTIONS)}
    assert {k.lower(): v for k, v in seen(model)["headers"].items()}["x-request-id"] in asked


def test_what_lies_beside_the_step_is_not_run_again(job):
    assert len(list(drain(job.topic("asked")))) == QUESTIONS


def test_what_fails_again_is_a_new_letter_and_the_old_one_is_hidden(job, capsys):
    said = job.sage("dlq", "replay", job.path, "--yes")
    again = job.open("decode")

    assert f"replayed {BROKEN} dead letters; failed again: {BROKEN}" in said
    assert len(again) == BROKEN
    assert {letter.run for letter in again} == {f"{job.name}.replay"}
    assert {letter.job for letter in again} == {job.name}
    assert in_all(job.sage("dlq", "list", job.path)) == BROKEN
    every = job.sage("dlq", "list", job.path, "--all")
    assert in_all(every) == QUESTIONS + 2 * BROKEN
    with capsys.disabled():
        print(f"\n{said}\n{every}")
