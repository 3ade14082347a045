"""vLLM's chat and embeddings next to llama.cpp, all managed by the control plane.

Five minutes and 6 GB, so it runs on request only, as ``test_vllm.py``::

    bash infra/vllm.sh
    SAGE_TEST_VLLM=1 python -m pytest -m service -s tests/gateway/test_vllm_pool.py
"""

import math
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from sage_flink.common.settings import sage_cache

MODELS = sage_cache() / "models"
START_S = 600
CALLERS = 8
TOKENS = 32
LONG_TOKENS = 100

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        os.environ.get("SAGE_TEST_VLLM") != "1",
        reason="run `bash infra/vllm.sh`, then set SAGE_TEST_VLLM=1",
    ),
]

LLAMACPP = {
    "engine": "llamacpp",
    "kind": "chat",
    "source": str(MODELS / "smollm2-135m-instruct.gguf"),
    "slots": CALLERS,
}
VLLM = {
    "engine": "vllm",
    "slots": CALLERS,
    "arguments": ["--enforce-eager"],
    "health": {"start_timeout_s": START_S},
}
TALK = {**VLLM, "kind": "chat", "source": str(MODELS / "smollm2-hf")}
VECTORS = {
    **VLLM,
    "kind": "embedding",
    "source": str(MODELS / "minilm-hf"),
    "context_tokens": 256,
    "dim": 384,
}
WITHOUT_END = {"ignore_eos": True, "temperature": 0}


def test_vllm_is_started_routed_to_drained_and_stopped_next_to_llamacpp(start: Any) -> None:
    with start({"light": LLAMACPP}) as gateway:
        for name, spec in (("talk", TALK), ("vectors", VECTORS)):
            assert gateway.client.put(f"/pool/models/{name}", json=spec).status_code == 201
        become_ready(gateway)
        family = [*processes(gateway, "talk"), *processes(gateway, "vectors")]

        chats_are_routed_and_counted(gateway)
        vectors_are_routed_and_counted(gateway)
        a_drained_model_finishes_its_answer_and_ends(gateway)
    ended, alive = psutil.wait_procs(family, timeout=5)

    assert not alive
    assert len(ended) == len(family)


def become_ready(gateway: Any) -> None:
    """Wait for both, and check the model that already serves."""
    began = time.monotonic()
    took: dict[str, float] = {}
    beside: list[float] = []
    while len(took) < 2:
        for name in ("talk", "vectors"):
            replica = gateway.pool.models[name].replica_slots[0].replica
            assert not replica.restarts, replica.reason
            if replica.state == "ready":
                took.setdefault(name, time.monotonic() - began)
        asked = time.monotonic()
        assert gateway.chat("Hi.", model="light", max_tokens=1).status_code == 200
        beside.append(time.monotonic() - asked)
        time.sleep(1)
    for name, seconds in took.items():
        memory_mb = sum(one.memory_full_info().pss for one in processes(gateway, name)) >> 20
        print(f"\n{name}: ready after {seconds:.0f} s, {memory_mb} MB", end="")
    print(f"; llama.cpp meanwhile: {len(beside)} chats, {max(beside):.2f} s at most")


def chats_are_routed_and_counted(gateway: Any) -> None:
    """The counters of each engine equal the usage in its responses."""
    asked = {"model": "talk", "max_tokens": 16, "temperature": 0}
    france = gateway.chat("What is the capital of France?", **asked).json()
    assert "Paris" in france["choices"][0]["message"]["content"]
    for name, counter in (
        ("talk", "vllm:generation_tokens_total"),
        ("light", "llamacpp:tokens_predicted_total"),
    ):
        before, began = engine_counter(gateway, name, counter), time.monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            more = {"model": name, "max_tokens": TOKENS, **WITHOUT_END}
            asks = [callers.submit(gateway.chat, f"Tell story {i}.", **more) for i in range(16)]
        made = sum(ask.result().json()["usage"]["completion_tokens"] for ask in asks)
        print(f"{name}: {made / (time.monotonic() - began):.0f} tokens/s at {CALLERS}")

        assert made == 16 * TOKENS
        gateway.until(lambda: engine_counter(gateway, name, counter) - before == made, 5)  # noqa: B023


def vectors_are_routed_and_counted(gateway: Any) -> None:
    """Unit vectors, similar for similar texts; engine and gateway count the same tokens."""
    texts = ["a cat sleeps", "the stock market fell", "a kitten naps"] * 16
    before, began = engine_counter(gateway, "vectors", "vllm:prompt_tokens_total"), time.monotonic()
    page = gateway.client.post("/v1/embeddings", json={"model": "vectors", "input": texts}).json()
    print(f"vectors: {len(texts) / (time.monotonic() - began):.0f} texts/s")
    cat, market, kitten = (row["embedding"] for row in page["data"][:3])

    assert len(cat) == 384
    assert math.isclose(dot(cat, cat), 1, abs_tol=1e-3)
    assert dot(cat, kitten) > 0.4 > dot(cat, market)
    used = page["usage"]["prompt_tokens"]
    gateway.until(
        lambda: engine_counter(gateway, "vectors", "vllm:prompt_tokens_total") - before == used, 5
    )


def a_drained_model_finishes_its_answer_and_ends(gateway: Any) -> None:
    """Scaling to zero during a response completes it, and then the engine ends."""
    family = processes(gateway, "talk")
    events = stream_lines(gateway, "talk")
    next(events)
    asked = gateway.client.post("/pool/models/talk/scale", json={"replicas": 0})
    assert asked.status_code == 200
    assert states(gateway)["talk/0"] == "draining"
    assert list(events)[-1] == "data: [DONE]"
    began = time.monotonic()
    gateway.until(lambda: not any(one.is_running() for one in family), 20)
    print(f"talk: ended {time.monotonic() - began:.1f} s after its last answer")

    gateway.until(lambda: "talk/0" not in states(gateway))
    refused = gateway.chat("Hi.", model="talk")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert gateway.chat("Hi.", model="light", max_tokens=1).status_code == 200
    assert states(gateway) == {"light/0": "ready", "vectors/0": "ready"}


def stream_lines(gateway: Any, model: str) -> Iterator[str]:
    """The lines of a long answer, as they arrive."""
    messages = [{"role": "user", "content": "Tell a long story."}]
    body = {"model": model, "messages": messages, "max_tokens": LONG_TOKENS, "stream": True}
    url = "/v1/chat/completions"
    with gateway.client.stream("POST", url, json=body | WITHOUT_END) as answer:
        yield from filter(None, answer.iter_lines())


def states(gateway: Any) -> dict[str, str]:
    """The state of each replica, from the admin API."""
    page = gateway.client.get("/pool/replicas").json()
    return {one["id"]: one["state"] for one in page["data"]}


def processes(gateway: Any, model: str) -> list[psutil.Process]:
    """The processes of the engine and its children."""
    engine = psutil.Process(gateway.pool.models[model].replica_slots[0].process.pid)
    return [engine, *engine.children(recursive=True)]


def engine_counter(gateway: Any, model: str, counter: str) -> float:
    """A counter of the engine's own metrics."""
    page = httpx.get(gateway.pool.models[model].replica_slots[0].url("/metrics"), verify=False).text
    found = re.findall(rf"^{counter}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    assert found, f"no {counter} among {len(page)} characters"
    return sum(map(float, found))


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
