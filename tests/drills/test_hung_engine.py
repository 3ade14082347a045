"""SIGSTOP of one model's engine: the other models are not affected."""

import json
import statistics
import threading
import time

import httpx
import pytest

from sage_flink.common import Settings

SHORT_S = 15.0


@pytest.mark.full
def test_a_hung_engine_stalls_no_other_model_and_loses_no_record(run, cluster, full):
    hung_s = 60.0 if full else SHORT_S

    def fault(running):
        alone = chat_latencies(SHORT_S / 2)
        with cluster.suspend("gateway", "mock-engine", "mock-chat.journal"):
            during = chat_latencies(hung_s)
        running.notes |= {"p99_alone_ms": p99_ms(alone), "p99_beside_ms": p99_ms(during)}

    outcome = run(fault, name="engine_hung", timeout_s=180.0)

    assert outcome.is_balanced, outcome
    assert outcome.notes["p99_beside_ms"] <= 1.5 * max(outcome.notes["p99_alone_ms"], 50), outcome


def chat_latencies(seconds, clients=4):
    """Latencies of the calls of ``clients`` clients to another model, in seconds."""
    settings, found = Settings.load(), []
    key = {"Authorization": f"Bearer {settings.secret('gateway')}"}

    def ask():
        until = time.monotonic() + seconds
        with httpx.Client(
            base_url=settings.gateway_urls[0], headers=key, timeout=30, verify=False
        ) as client:
            while (began := time.monotonic()) < until:
                messages = [{"role": "user", "content": f"at {began}"}]
                body = json.dumps({"model": "mock-other", "messages": messages})
                assert client.post("/v1/chat/completions", content=body).status_code == 200
                found.append(time.monotonic() - began)
                time.sleep(0.05)

    callers = [threading.Thread(target=ask) for _ in range(clients)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return found


def p99_ms(seconds):
    return round(statistics.quantiles(seconds, n=100)[98] * 1000, 1)
