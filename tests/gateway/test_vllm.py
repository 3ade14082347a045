"""vLLM behind the gateway: it takes minutes and gigabytes, so it runs on request only.

::

    bash infra/vllm.sh
    SAGE_TEST_VLLM=1 python -m pytest -m service -s tests/gateway/test_vllm.py
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from sage_flink.common.settings import sage_cache

FOLDER = sage_cache() / "models" / "smollm2-hf"
START_S = 400

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.environ.get("SAGE_TEST_VLLM") != "1",
        reason="run `bash infra/vllm.sh`, then set SAGE_TEST_VLLM=1",
    ),
]


@pytest.fixture(scope="module")
def gateway(start: Any) -> Iterator[Any]:
    model = {
        "engine": "vllm",
        "kind": "chat",
        "source": str(FOLDER),
        "slots": 8,
        "context_tokens": 2048,
        "arguments": ["--enforce-eager"],
        "health": {"start_timeout_s": START_S},
    }
    began = time.monotonic()
    with start({"talk": model}, wait=False) as gateway:
        replica = lambda: gateway.pool.models["talk"].replica_slots[0].replica  # noqa: E731
        gateway.until(lambda: gateway.healthy() or replica().restarts, START_S)
        assert not replica().restarts, replica().reason
        print(f"\nhealthy after {time.monotonic() - began:.0f} s, {memory_mb(gateway)} MB")
        yield gateway


def memory_mb(gateway: Any) -> int:
    """The memory of the engine and its own processes, each shared page counted once."""
    engine = psutil.Process(gateway.pool.models["talk"].replica_slots[0].process.pid)
    family = (engine, *engine.children(recursive=True))
    return sum(process.memory_full_info().pss for process in family) >> 20


def test_the_model_knows_the_capital_of_france(gateway: Any) -> None:
    answer = gateway.chat("What is the capital of France?", max_tokens=16, temperature=0).json()

    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["model"] == "talk"
    assert 0 < answer["usage"]["completion_tokens"] <= 16


def test_a_streamed_chat_has_chunks_and_ends_with_done(gateway: Any) -> None:
    answer = gateway.chat("Count from one to five.", max_tokens=16, stream=True)

    assert answer.text.count('"content"') > 4
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_prompt_longer_than_the_context_is_refused(gateway: Any) -> None:
    answer = gateway.chat("word " * 5000)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_eight_concurrent_callers_are_all_answered(gateway: Any) -> None:
    began = time.monotonic()
    ask = {"max_tokens": 32, "ignore_eos": True, "temperature": 0}
    with ThreadPoolExecutor(8) as callers:
        turns = [callers.submit(gateway.chat, f"Tell story {i}.", **ask) for i in range(8)]
    pages = [turn.result().json() for turn in turns]
    took_s = time.monotonic() - began

    made = sum(page["usage"]["completion_tokens"] for page in pages)
    print(
        f"\n{made} tokens in {took_s:.1f} s: {made / took_s:.0f} a second, {memory_mb(gateway)} MB"
    )
    assert made == 8 * 32
