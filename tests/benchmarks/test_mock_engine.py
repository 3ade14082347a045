"""The mock engine through its Python client. Its Go tests cover all of its behaviour."""

import hashlib

import httpx
import psutil
import pytest

from benchmark_sage.mock_engine import mock_engine
from sage_flink.common import ConfigError


@pytest.fixture(scope="module")
def engine():
    with mock_engine(dim=8) as started:
        yield started


def chat(engine, text: str) -> httpx.Response:
    page = {"model": "mock", "messages": [{"role": "user", "content": text}]}
    return httpx.post(f"{engine.url}/v1/chat/completions", json=page, verify=False)


def test_an_answer_can_be_checked_against_its_question(engine):
    answer = chat(engine, "grüße").json()

    digest = hashlib.sha256("grüße".encode()).hexdigest()[:16]
    assert answer["choices"][0]["message"]["content"].startswith(f"sum:{digest}")
    assert answer["usage"]["completion_tokens"] == 16


def test_a_fault_is_requested_by_the_text_and_counted(engine):
    engine.reset()

    answers = [chat(engine, "[[status=429 retry_after=1 first=1]]") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [429, 200]
    assert answers[0].headers["retry-after"] == "1"
    stats = engine.stats()
    assert (stats["requests"], stats["generations"], stats["faults"]) == (2, 1, {"status": 1})


def test_it_records_the_configured_number_of_requests():
    with mock_engine(dim=8, record=2) as engine:
        for text in ("one", "two", "three"):
            chat(engine, text)
        first, second = engine.requests()

    assert (first["path"], second["path"]) == ("/v1/chat/completions",) * 2
    assert "one" in first["body"]
    assert "user-agent" in first["headers"]
    assert 0 < first["began"] <= first["ended"] <= second["began"]


def test_latency_can_be_changed_while_it_runs(engine):
    engine.reset()
    engine.control(latency="constant:30ms")

    chat(engine, "anything")

    engine.control(latency="none")
    assert engine.stats()["latency_drawn_s"] == pytest.approx(0.03)
    assert engine.stats()["busy_slot_s"] >= 0.03


def test_the_error_for_a_wrong_plan_names_the_valid_values(engine):
    with pytest.raises(ConfigError, match="lognormal"):
        engine.control(latency="soon")

    with pytest.raises(ConfigError, match=r"did not start.*lognormal"), mock_engine("soon"):
        pass


def test_it_ends_with_its_block():
    with mock_engine() as engine:
        assert psutil.pid_exists(engine.pid)

    assert not psutil.pid_exists(engine.pid)
