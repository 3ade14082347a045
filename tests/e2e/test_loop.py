"""A loop through a Kafka topic on the real stack, stopped with a savepoint and resumed midway."""

import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from waiting import wait_until

from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Settings
from sage_flink.common.dead_letters import from_message
from sage_flink.platform.flink_rest import FlinkRest

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

JOB = Path(__file__).with_name("loop.py")
TASKS, ENDLESS = 300, 20  # of the tasks before the savepoint
PASSES, HOPS_MAX = 4, 5  # of the job


@pytest.fixture
def name():
    made = f"loop{uuid.uuid4().hex[:8]}"
    topics = [f"{made}.{topic}" for topic in ("tasks", "results", "failed")]
    for topic in topics:
        ensure_topic(topic)
    yield made
    for topic in topics:
        delete_topic(topic)


def message(n):
    task = {"task": f"task/{n}", "passes": 0, "endless": n < ENDLESS}
    return f"task/{n}".encode(), json.dumps(task).encode()


def messages_while(process):
    """Tasks that arrive one by one until the process ends."""
    for n in count(TASKS):
        if process.poll() is not None:
            return
        yield message(n)
        time.sleep(0.1)


def start_sage_jobs(*words):
    command = [Path(sys.executable).with_name("sage"), "jobs", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_end(process):
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


def sage_jobs(*words):
    check_end(start_sage_jobs(*words))


def test_a_loop_ends_at_its_limit_and_a_savepoint_midway_loses_no_pass(name):
    with FlinkRest(Settings.load().flink_url) as rest:
        sage_jobs("submit", str(JOB), "--name", name)
        wait_until(lambda: rest.all_tasks_running(rest.job(name).id), 120, "the job's tasks run")
        feed(f"{name}.tasks", map(message, range(TASKS)))
        wait_until(lambda: copies(name) > TASKS, 180, "some tasks come back")
        stop = start_sage_jobs("stop", name, "--savepoint")
        tasks = TASKS + feed(f"{name}.tasks", messages_while(stop))  # so that some are midway
        check_end(stop)
        assert tasks_midway(name)
        sage_jobs("submit", str(JOB), "--name", name, "--from-savepoint", "latest")
        wait_until(lambda: len(results(name)) >= tasks - ENDLESS, 240, "all results")
        wait_until(lambda: len(failures(name)) >= ENDLESS, 240, "the endless tasks fail")
        rest.cancel(rest.job(name).id)

    expected = {f"task/{n}": PASSES for n in range(ENDLESS, tasks)}
    assert {value["task"]: value["passes"] for value in results(name)} == expected
    assert len(results(name)) == tasks - ENDLESS
    assert Counter(letter.step for letter in failures(name)) == {"hops": ENDLESS}
    assert f"has passed {HOPS_MAX} times" in failures(name)[0].reason
    assert len({letter.id for letter in failures(name)}) == ENDLESS
    assert copies(name) == (tasks - ENDLESS) * PASSES + ENDLESS * (HOPS_MAX + 1)


def copies(name):
    """The committed messages of the loop's topic: the tasks, and each time that one came back."""
    return len(list(drain(f"{name}.tasks")))


def tasks_midway(name):
    """The tasks that have come back and have no result, without the endless ones."""
    tasks = [json.loads(message.value) for message in drain(f"{name}.tasks")]
    begun = {task["task"] for task in tasks if task["passes"] and not task["endless"]}
    return begun - {result["task"] for result in results(name)}


def results(name):
    return [json.loads(message.value) for message in drain(f"{name}.results")]


def failures(name):
    return [from_message(message) for message in drain(f"{name}.failed")]
