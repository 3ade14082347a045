"""``sage pool``: keys and usage of a running gateway."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError, OperatorNeeded


@pytest.fixture(autouse=True)
def settings_of_gateway(gateway: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setenv("SAGE_GATEWAY_URL", gateway.url)
    monkeypatch.setenv("SAGE_GATEWAY_KEY", "sk-sage-test")
    monkeypatch.setenv("COLUMNS", "200")


def sage(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["pool", *words])


def test_a_key_is_created_listed_used_and_revoked(gateway: Any) -> None:
    made = sage("keys", "create", "shop", "--name", "till", "--tokens-per-day", "5000")
    key, *rest = made.output.splitlines()
    key_id = rest[0].split()[0]
    listed = sage("keys", "list").output
    own = {"Authorization": f"Bearer {key}"}
    body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}], "max_tokens": 1}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=own, verify=False)
    used = json.loads(sage("usage", "--json").output)
    revoked = sage("keys", "revoke", key_id)

    assert key.startswith("sk-sage-")
    (line,) = [line for line in listed.splitlines() if key_id in line]
    assert line.split()[1:] == ["shop", "till", "infer", "tokens_per_day", "5,000"]
    assert key not in listed
    assert answer.status_code == 200
    assert [(u["tenant"], u["total_tokens"]) for u in used if u["key"] == key_id] == [("shop", 5)]
    assert revoked.output == f"{key_id} revoked\n"
    assert httpx.get(f"{gateway.url}/v1/models", headers=own, verify=False).status_code == 401


def test_keys_can_be_created_from_a_program() -> None:
    words = ("keys", "create", "a", "--scope", "read", "--scope", "infer", "--json")

    made = json.loads(sage(*words).output)
    listed = json.loads(sage("keys", "list", "--json").output)

    assert made["scopes"] == ["infer", "read"]
    assert made["id"] in {key["id"] for key in listed}
    assert "key" not in listed[0]


def test_cleared_caches_answer_no_request(gateway: Any) -> None:
    body = {"model": "talk", "messages": [{"role": "user", "content": "echo to clear"}]}
    send = lambda: gateway.client.post(  # noqa: E731
        "/v1/chat/completions", json=body, headers={"x-sage-cache": "ttl=600"}
    )
    assert [send().headers["x-sage-cache"] for _ in range(2)] == ["miss", "hit"]

    cleared = sage("clear-cache")

    assert cleared.output == "all cached answers and vectors removed\n"
    assert send().headers["x-sage-cache"] == "miss"


def test_usage_is_a_table_of_the_requested_days(gateway: Any) -> None:
    gateway.chat("echo hi")

    shown = sage("usage").output.split()

    assert {"day", "key", "local", "requests", "prompt", "completion"} <= set(shown)
    assert sage("usage", "--since", "2026-01-01", "--until", "2026-01-02").output == ("no usage\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("keys", "create", "a", "--scope", "root"), "'infer', 'read' or 'admin'"),
        (("keys", "revoke", "nope"), "no key 'nope'; GET /pool/keys lists them"),
        (("usage", "--since", "yesterday"), "valid date"),
    ],
)
def test_a_refusal_is_printed_with_the_message_of_the_gateway(
    words: tuple[str, ...], message: str
) -> None:
    error = sage(*words).exception

    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_without_a_gateway_the_next_step_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_GATEWAY_URL", "http://127.0.0.1:9")

    error = sage("keys", "list").exception

    assert isinstance(error, OperatorNeeded)
    assert "run `sage up`" in str(error)
