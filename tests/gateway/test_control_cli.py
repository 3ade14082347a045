"""``sage pool``: models and replicas of a running gateway."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError


@pytest.fixture(scope="module")
def pool(start: Any, fake: Any) -> Iterator[Any]:
    models = {"talk": fake(), "ill": fake(arguments=["--no-such-option"])}
    with start(models, wait=False) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 1)
        gateway.until(lambda: gateway.pool.models["ill"].replica_slots[0].replica.restarts > 0)
        yield gateway


@pytest.fixture(autouse=True)
def settings_of_pool(pool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setenv("SAGE_GATEWAY_URL", pool.url)
    monkeypatch.setenv("SAGE_GATEWAY_KEY", "sk-sage-test")
    monkeypatch.setenv("COLUMNS", "80")


def sage(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["pool", *words])


def test_status_shows_the_models_and_why_one_is_not_ready() -> None:
    shown = sage("status")

    assert shown.exit_code == 1
    lines = shown.output.splitlines()
    assert lines[0].split() == [
        "model",
        "engine",
        "kind",
        "ready",
        "wanted",
        "in",
        "flight",
        "waiting",
    ]
    assert lines[1].split() == ["talk", "fake", "chat", "1", "1", "0", "0"]
    assert any(line.startswith("ill/0 is ") for line in lines[2:])
    assert all(len(line) <= 80 for line in lines[:3])


def test_a_replica_is_listed_with_its_process() -> None:
    replicas = json.loads(sage("replicas", "--json").output)
    shown = sage("replicas").output

    talk = next(r for r in replicas if r["id"] == "talk/0")
    (line,) = [line for line in shown.splitlines() if "talk/0" in line]
    assert line.split()[1:7] == [
        "ready",
        "closed",
        str(talk["pid"]),
        str(talk["port"]),
        "0/128",
        "0",
    ]
    assert all(len(line) <= 80 for line in shown.splitlines()[:3])
    assert "ill/0: exited with 2: serve_fake.py: error: unrecognized arguments" in shown


def test_a_model_is_scaled_and_a_replica_drained(pool: Any) -> None:
    scaled = sage("scale", "talk", "2")
    pool.until(lambda: pool.pool.models["talk"].ready() == 2)
    drained = sage("drain", "talk/1")
    names = lambda: [m.replica.name for m in pool.pool.models["talk"].replica_slots]  # noqa: E731
    pool.until(lambda: names() == ["talk/0", "talk/2"])

    assert scaled.output == "talk: 2 wanted, 1 ready\n"
    assert drained.output.startswith("talk/1 stops when another replica is ready")
    assert json.loads(sage("scale", "talk", "1", "--json").output)["wanted"] == 1
    pool.until(lambda: names() == ["talk/0"])


def test_a_preset_is_printed_as_a_pool_file() -> None:
    listed = sage("presets").output
    printed = sage("presets", "cpu-small").output

    assert [line.split(":")[0] for line in listed.splitlines()] == [
        "cpu-small",
        "cpu-vllm",
        "gpu-mixed",
        "gpu-vllm",
    ]
    assert "smollm2" in yaml.safe_load(printed)["models"]
    assert list(json.loads(sage("presets", "cpu-small", "--json").output)) == ["cpu-small"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scale", "nope", "1"), "no model 'nope' here; there are talk, ill"),
        (("drain", "talk/77"), "no replica 'talk/77' here"),
        (("presets", "nope"), "no preset 'nope'; the presets are cpu-small"),
    ],
)
def test_a_refused_command_reports_the_reason(words: tuple[str, ...], message: str) -> None:
    error = sage(*words).exception

    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_an_invalid_number_of_replicas_is_refused_without_a_request() -> None:
    assert sage("scale", "talk", "65").exit_code == 2
