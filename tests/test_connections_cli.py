"""``sage connections``: what it lists and what it says of a connection that cannot be opened."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.cli.connections import _within
from sage_flink.common import ConfigError, StoreUnavailable

SECRET = "sword-fi-sh"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SAGE_CONNECTIONS", "SAGE_KAFKA_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setenv("EVENTS_PASSWORD", SECRET)
    return tmp_path


def write(home: Path) -> None:
    (home / "connections.yaml").write_text(
        "events: {kind: kafka, servers: 'localhost:1', protocol: SASL_SSL, mechanism: PLAIN,\n"
        "         username: me, password: env:EVENTS_PASSWORD}\n"
        "cache: {kind: redis, url: 'rediss://cache:6379/0', password: env:EVENTS_PASSWORD}\n"
        "docs: {kind: milvus, url: 'http://127.0.0.1:1'}\n"
        "schemas: {kind: schema_registry, url: 'https://127.0.0.1:1', username: me,\n"
        "          password: env:EVENTS_PASSWORD, certificate: /me.pem, key: /me.key}\n"
        "types: {kind: schema_registry, url: 'http://127.0.0.1:1'}\n"
    )
    (home / "stack.json").write_text(
        json.dumps({"connections": {"pool": {"kind": "gateway", "url": "http://127.0.0.1:1"}}})
    )


def test_a_list_shows_where_each_is_defined_and_how_secured_and_no_secret(home: Path) -> None:
    write(home)

    shown = CliRunner().invoke(cli.app, ["connections", "ls"]).output
    listed = json.loads(CliRunner().invoke(cli.app, ["connections", "ls", "--json"]).output)

    assert {line["name"]: (line["kind"], line["secured_by"]) for line in listed} == {
        "events": ("kafka", "SASL_SSL PLAIN"),
        "cache": ("redis", "tls, password"),
        "docs": ("milvus", "open"),
        "pool": ("gateway", "open"),
        "schemas": ("schema_registry", "tls, mTLS, password"),
        "types": ("schema_registry", "open"),
    }
    assert {line["defined_in"] for line in listed} == {
        str(home / "connections.yaml"),
        str(home / "stack.json"),
    }
    for name in ("events", "localhost:1", "SASL_SSL PLAIN", str(home / "stack.json")):
        assert name in shown
    for text in (shown, json.dumps(listed)):
        assert SECRET not in text


def test_an_empty_list_says_where_to_write(home: Path) -> None:
    shown = CliRunner().invoke(cli.app, ["connections", "ls"]).output

    assert str(home / "connections.yaml") in shown


def test_a_name_that_is_not_there_is_answered_with_those_that_are(home: Path) -> None:
    write(home)

    result = CliRunner().invoke(cli.app, ["connections", "test", "evnts"])

    assert isinstance(result.exception, ConfigError)
    assert "there are: cache, docs, events, gateway, influxdb, kafka, milvus, pool, schemas" in str(
        result.exception
    )


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("events", StoreUnavailable, "no broker answers"),
        ("pool", StoreUnavailable, r"connection 'pool' \(gateway at http://127.0.0.1:1\): url"),
        ("types", StoreUnavailable, r"connection 'types' \(schema registry at .*\): url: Conn"),
    ],
)
def test_a_server_that_is_away_is_said_to_be(
    home: Path, name: str, kind: type[Exception], words: str
) -> None:
    write(home)

    result = CliRunner().invoke(cli.app, ["connections", "test", name])

    with pytest.raises(kind, match=words):
        raise result.exception or AssertionError(result.output)


def test_a_check_ends_at_its_limit() -> None:
    def hang() -> str:
        import time

        time.sleep(5)
        return "late"

    with pytest.raises(StoreUnavailable, match=r"^x: no answer within 0.2 s"):
        _within(0.2, hang, "x")
