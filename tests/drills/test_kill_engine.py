"""kill -9 of one of two engines, and of the only one, which is restarted 20 s later."""

import json
import random
import time

import httpx
import pytest

from benchmark_sage.recovery.cluster import MODELS, until
from sage_flink.common import Settings

AWAY_S = 20.0


def test_with_a_second_engine_a_killed_one_fails_no_request(run, cluster, seed):
    def fault(running):
        port = random.Random(seed).choice(ports(cluster, "mock-pair"))
        cluster.kill("gateway", "mock-engine", "mock-pair.journal", f"--port {port}")

    outcome = run(fault, name="engine_one_of_two", model="mock-pair", attempts_max=1)

    assert outcome.is_balanced, outcome
    assert outcome.dead_letters == []


@pytest.mark.full
def test_the_only_engine_down_for_a_while_loses_no_record(run, cluster):
    def fault(running):
        back = time.monotonic() + AWAY_S
        while time.monotonic() < back:
            for process in cluster.processes("gateway", ["mock-chat.journal"]):
                process.kill()
            time.sleep(0.05)
        running.notes["healthy_s"] = round(wait_healthy(), 2)
        paid = len(cluster.generations("mock-chat"))
        traffic = until(lambda: len(cluster.generations("mock-chat")) > paid, 60, "traffic")
        running.notes["traffic_s"] = round(traffic, 2)

    outcome = run(fault, name="engine_only_one")

    assert outcome.is_balanced, outcome
    assert outcome.dead_letters == []
    assert outcome.notes["traffic_s"] <= 5


def ports(cluster, model):
    assert MODELS[model][1] > 1
    lines = [process.cmdline() for process in cluster.processes("gateway", [f"{model}.journal"])]
    return [line[line.index("--port") + 1] for line in lines if "--port" in line]


def wait_healthy():
    """Seconds until the gateway answers a chat again."""
    settings, began = Settings.load(), time.monotonic()
    body = {"model": "mock-chat", "messages": [{"role": "user", "content": "are you there?"}]}
    while True:
        answer = httpx.post(
            f"{settings.gateway_urls[0]}/v1/chat/completions",
            content=json.dumps(body),
            headers={"Authorization": f"Bearer {settings.secret('gateway')}"},
            timeout=30,
            verify=False,
        )
        if answer.status_code == 200:
            return time.monotonic() - began
        assert time.monotonic() - began < 60, answer.text
        time.sleep(0.05)
