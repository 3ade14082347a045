"""Scaling over HTTP: decisions, their inputs, and the recorded trace."""

import json
from pathlib import Path
from typing import Any

import pytest

from sage_gateway.replay import read

JOB = {"x-sage-job": "ingest"}
SCALING = {"min": 1, "max": 3, "dry_run": True}


def decisions(gateway: Any, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.client.get("/pool/decisions", params=params).json()[
        "data"
    ]
    return found


def latest_inputs(gateway: Any) -> dict[str, Any]:
    """The inputs of the newest decision, after one more request."""
    gateway.chat("echo hello")
    inputs: dict[str, Any] = decisions(gateway)[0]["inputs"]
    return inputs


def test_a_model_that_scales_has_decisions_with_their_inputs_and_others_have_none(
    start: Any, fake: Any
) -> None:
    with start({"talk": fake(scaling=SCALING), "fixed": fake()}) as gateway:
        gateway.until(lambda: latest_inputs(gateway)["arrival_rate"] > 0)
        found = decisions(gateway)

        assert {one["model"] for one in found} == {"talk"}
        assert found[0]["action"] == "hold"
        assert found[0]["dry_run"] is True
        assert found[0]["inputs"]["limit"] == 128
        assert decisions(gateway, model="fixed") == []
        assert len(decisions(gateway, limit=1)) == 1
        assert 'scaling_decisions_total{action="hold"' in gateway.client.get("/metrics").text


@pytest.mark.parametrize("limit", ["0", "many", "1000"])
def test_a_wrong_limit_is_a_400(gateway: Any, limit: str) -> None:
    assert gateway.client.get("/pool/decisions", params={"limit": limit}).status_code == 400


def test_streams_are_measured_and_jobs_are_recorded_except_in_the_background(
    start: Any, fake: Any
) -> None:
    body = {"model": "talk", "messages": [{"role": "user", "content": "echo a b c"}]}
    with start({"talk": fake(scaling=SCALING)}) as gateway:
        for headers in (JOB, JOB, {"x-sage-job": "backfill", "x-sage-priority": "background"}):
            gateway.client.post(
                "/v1/chat/completions", json=body | {"stream": True}, headers=headers
            ).read()
        load = gateway.pool.models["talk"].load

        assert (load.arrived, load.answered) == (3, 3)
        assert sum(load.ttfts.counts) == 3
        assert list(load.jobs) == ["ingest"]


def test_requests_are_recorded_without_their_text(start: Any, fake: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with start({"talk": fake(policy="slo")}, pool={"trace": {"path": str(path)}}) as gateway:
        gateway.chat("echo a secret")
        gateway.chat("echo another secret", stream=True)
        gateway.chat("status 500")
    trace = read(path)

    assert trace.header.models["talk"].policy == "slo"
    assert [row.status for row in trace.rows] == [200, 200, 502]
    assert [row.ttft_s is None for row in trace.rows] == [True, False, True]
    assert trace.rows[0].used == 5
    assert "secret" not in path.read_text()


def test_a_path_in_the_environment_records_too(
    start: Any, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.jsonl"
    monkeypatch.setenv("SAGE_POOL_TRACE", str(path))
    with start({"talk": fake()}) as gateway:
        gateway.chat("echo hi")

    assert json.loads(path.read_text().splitlines()[1])["model"] == "talk"
