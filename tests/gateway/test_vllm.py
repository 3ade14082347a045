"""vLLM itself behind the gateway: heavy, so only where SAGE_TEST_VLLM names a model's folder.

The interpreter that has vLLM is ``SAGE_VLLM_PYTHON``, or that of ``$SAGE_CACHE/venv/vllm-*``.
"""

import os
from typing import Any

import pytest

FOLDER = os.environ.get("SAGE_TEST_VLLM", "")

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not FOLDER, reason="set SAGE_TEST_VLLM to a chat model's folder"),
]


def test_vllm_answers_a_chat_and_refuses_one_that_is_too_long(start: Any) -> None:
    model = {
        "engine": "vllm",
        "kind": "chat",
        "source": FOLDER,
        "context_tokens": 2048,
        "arguments": ["--enforce-eager"],
        "health": {"start_timeout_s": 400},
    }
    with start({"talk": model}, wait=False) as gateway:
        gateway.until(gateway.healthy, 400)
        answer = gateway.chat("The capital of France is", max_tokens=8)
        long = gateway.chat("word " * 5000)

    assert answer.json()["choices"][0]["message"]["content"]
    assert long.json()["error"]["code"] == "context_length_exceeded"
