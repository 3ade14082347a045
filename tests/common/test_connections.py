"""Named connections: what may be written, where it is found, and that no secret is ever in one."""

import json
import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest

import sage_connectors
from sage_connectors import kafka
from sage_connectors.kafka_security import java_properties, python_options
from sage_flink import db, flow, tsdb
from sage_flink.common import ConfigError, Settings
from sage_flink.common.connections import GatewayConnection, KafkaConnection, parse
from sage_flink.common.connections_file import connection_to, load_connections, named_connection
from sage_flink.common.secret_references import resolve
from sage_flink.flow.graph import for_job
from sage_flink.flow.yaml_form import from_yaml, to_yaml, vocabulary

SECRET = "sword-fi-sh"
EVENTS: dict[str, Any] = {
    "kind": "kafka",
    "servers": "broker-1:9093,broker-2:9093",
    "protocol": "SASL_SSL",
    "mechanism": "SCRAM-SHA-512",
    "username": "ingest",
    "password": "env:EVENTS_PASSWORD",
    "ca": "/etc/ssl/company.pem",
    "properties": {"client.rack": "a", "fetch.min.bytes": 5, "check.crcs": False},
}
FILE = """
events: {kind: kafka, servers: 'broker:9093', protocol: SASL_SSL, mechanism: PLAIN, username: me,
         password: env:EVENTS_PASSWORD}
docs: {kind: milvus, url: 'https://milvus:19530', token: env:EVENTS_PASSWORD, database: prod}
ops: {kind: influxdb, url: 'https://influx:8086', org: o, token: env:EVENTS_PASSWORD}
pool: {kind: gateway, url: 'https://pool', key: env:EVENTS_PASSWORD}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SAGE_CONNECTIONS", "SAGE_KAFKA_SERVERS", "SAGE_GATEWAY_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setenv("EVENTS_PASSWORD", SECRET)
    (tmp_path / "connections.yaml").write_text(FILE)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"passwort": SECRET}, "unknown field 'passwort'"),
        ({"name": "x"}, "unknown field 'name'"),
        ({"kind": SECRET}, "kind must be one of kafka, milvus"),
        ({"servers": None}, "servers must be a valid string"),
        ({"servers": SECRET}, "servers must be 'host:port,host:port'"),
        ({"mechanism": SECRET}, "mechanism must be 'PLAIN', 'SCRAM-SHA-256'"),
        ({"protocol": "TLS"}, "protocol must be 'PLAINTEXT', 'SSL'"),
        ({"protocol": "SSL"}, "mechanism is for protocol SASL_SSL"),
        ({"username": ""}, "mechanism SCRAM-SHA-512 needs username"),
        ({"client_id": "me"}, "client_id has no use with mechanism SCRAM-SHA-512"),
        ({"ca": "company.pem"}, "ca must be an absolute path"),
        ({"certificate": "/me.pem"}, "certificate and key go together"),
        ({"password": SECRET}, "password must be a reference: env:NAME .* or file:/PATH"),
        ({"password": "env:not a name"}, "password must be a reference"),
        ({"password": "file:relative"}, "password must be a reference"),
        ({"password": 12345}, "password must be a valid string"),
        ({"properties": {"ssl.key.password": SECRET}}, "a secret ssl.key.password as a reference"),
        ({"properties": {"sasl.jaas.config": SECRET}}, "a secret sasl.jaas.config as a reference"),
        ({"properties": {"isolation.level": "x"}}, "without isolation.level: exactly-once"),
        ({"properties": {"transactional.id": "x"}}, "without transactional.id: exactly-once"),
        ({"properties": {"group.id": "x"}}, "without group.id: exactly-once"),
        ({"properties": {"bootstrap.servers": "b:1"}}, "the field servers says it"),
    ],
)
def test_a_wrong_field_is_named_and_what_was_written_is_not_repeated(
    change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        parse("events", {**EVENTS, **change})

    assert str(caught.value).startswith("connection 'events': ")
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "redis", "url": f"rediss://:{SECRET}@cache:6379/0"},
        {"kind": "influxdb", "url": "https://influx", "token": SECRET},
        {"kind": "milvus", "url": "https://milvus:1", "token": f"root:{SECRET}"},
        {"kind": "gateway", "url": "https://pool", "key": SECRET},
        {"kind": "schema_registry", "url": "https://r", "token": SECRET},
    ],
)
def test_a_literal_secret_is_refused_for_every_kind(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("x", fields)

    assert SECRET not in str(caught.value)


def test_a_file_that_is_no_yaml_is_named_without_its_content(home: Path) -> None:
    (home / "connections.yaml").write_text(f"events: {{password: '{SECRET}")

    with pytest.raises(ConfigError, match=r"connections.yaml: cannot be read as YAML") as caught:
        load_connections()

    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_reference_is_resolved_where_it_is_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "secret").write_text(f"  {SECRET}\n")
    (home / "empty").write_text("\n")

    assert resolve("env:EVENTS_PASSWORD", "x") == resolve(f"file:{home}/secret", "x") == SECRET
    monkeypatch.delenv("EVENTS_PASSWORD")
    with pytest.raises(ConfigError, match=r"^x: the environment variable EVENTS_PASSWORD is not"):
        resolve("env:EVENTS_PASSWORD", "x")
    with pytest.raises(ConfigError, match=r"x: .*/absent cannot be read here: No such file"):
        resolve(f"file:{home}/absent", "x")
    with pytest.raises(ConfigError, match=r"/empty is empty"):
        resolve(f"file:{home}/empty", "x")


def test_a_definition_travels_with_the_spec_and_holds_no_secret(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [
        kafka("orders", connection="events"),
        db.collection("docs", dim=4, connection="docs"),
        tsdb.bucket("ops", connection="ops"),
    ]
    written = [pickle.dumps(spec) for spec in specs]
    (home / "connections.yaml").unlink()  # a worker has none
    monkeypatch.delenv("EVENTS_PASSWORD")
    on_worker = [pickle.loads(each) for each in written]

    servers = [on_worker[0].brokers, on_worker[1].server, on_worker[2].server]
    assert [server.address for server in servers] == [
        "broker:9093",
        "https://milvus:19530",
        "https://influx:8086",
    ]
    for spec, server, pickled in zip(specs, servers, written, strict=True):
        assert any(value == "env:EVENTS_PASSWORD" for _, value, _ in pickletools.genops(pickled))
        for text in (str(spec), repr(spec), repr(server), str(server), pickled.decode("latin-1")):
            assert SECRET not in text
    with pytest.raises(ConfigError, match=r"connection 'ops' .*: token: the environment variable"):
        servers[2].secret("token")


def test_the_graph_its_yaml_and_its_explanation_hold_the_name_and_no_secret() -> None:
    graph = (
        flow.read("in", kafka("orders", connection="events"))
        .write("out", db.collection("docs", dim=4, connection="docs"))
        .dead_letters_to(kafka("{job}.dead-letters", connection="events"))
    )
    words = vocabulary(sage_connectors, db)
    text = to_yaml(graph, words)

    assert from_yaml(text, words) == graph
    assert text.count("connection: events") == 2
    for shown in (text, flow.explain(graph), flow.explain(graph, "mermaid"), repr(graph)):
        assert "events" in shown
        assert "EVENTS_PASSWORD" not in shown
        assert SECRET not in shown
    assert for_job(graph, "j").dead_letters.brokers.servers == "broker:9093"  # type: ignore[union-attr]


def test_java_gets_references_and_python_the_secret() -> None:
    connection = parse("events", {**EVENTS, "ca": ""})
    assert isinstance(connection, KafkaConnection)

    java = java_properties(connection)
    known = {
        "bootstrap_servers": "",
        "sasl_plain_password": None,
        "client_rack": "",
        "check_crcs": True,
    }
    python = python_options(parse("e", {**EVENTS, "ca": ""}), known)  # type: ignore[arg-type]

    assert java["sasl.jaas.config"].endswith(
        'ScramLoginModule required username="ingest" password="${sage:jaas-env:EVENTS_PASSWORD}";'
    )
    assert java["config.providers.sage.class"] == "org.sage.flink.connector.SecretProvider"
    assert (java["client.rack"], java["fetch.min.bytes"], java["check.crcs"]) == ("a", "5", "false")
    assert SECRET not in str(java)
    assert python == {
        "bootstrap_servers": ["broker-1:9093", "broker-2:9093"],
        "sasl_plain_password": SECRET,
        "client_rack": "a",
        "check_crcs": False,
    }


def test_a_connection_and_an_address_exclude_each_other() -> None:
    for make in (
        lambda: kafka("t", "b:1", connection="events"),
        lambda: db.collection("c", dim=2, url="http://x:1", connection="docs"),
        lambda: tsdb.bucket("b", url="http://x:1", connection="ops"),
        lambda: sage_connectors.http_pool("http://x:1", connection="pool"),
    ):
        with pytest.raises(ConfigError, match=r"give connection or .*, not both"):
            make()


def test_an_unknown_connection_or_one_of_another_kind_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no connection 'evnts' .*: docs, events, ops, pool"):
        kafka("t", connection="evnts")
    with pytest.raises(ConfigError, match="connection 'docs' is one of kind milvus; kafka is need"):
        kafka("t", connection="docs")
    with pytest.raises(ConfigError, match="store must be 'milvus' with a connection"):
        db.collection("c", dim=2, store="memory", connection="docs")


def test_the_users_connections_come_before_the_stacks(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = {"events": {**EVENTS, "servers": "stack:1"}, "kafka": {**EVENTS, "servers": "own:1"}}
    (home / "stack.json").write_text(json.dumps({"kafka_servers": "old:1", "connections": stack}))

    found = load_connections()

    assert found["events"][0].address == "broker:9093"
    assert found["events"][1] == home / "connections.yaml"
    assert found["kafka"][1] == home / "stack.json"
    monkeypatch.setenv("SAGE_CONNECTIONS", str(home / "absent.yaml"))
    with pytest.raises(
        ConfigError, match=r"absent\.yaml does not exist; SAGE_CONNECTIONS names it"
    ):
        load_connections()


def test_the_stacks_own_connection_is_for_the_stacks_own_address_only(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {**EVENTS, "servers": "own:1"}
    (home / "stack.json").write_text(json.dumps({"connections": {"kafka": own}}))

    assert Settings.load().kafka_servers == "own:1"
    assert connection_to("", KafkaConnection).mechanism == "SCRAM-SHA-512"
    assert connection_to("own:1", KafkaConnection).mechanism == "SCRAM-SHA-512"
    assert connection_to("other:1", KafkaConnection).mechanism is None
    assert kafka("t").brokers.protocol == "SASL_SSL"
    monkeypatch.setenv("SAGE_KAFKA_SERVERS", "other:1")
    assert connection_to("", KafkaConnection).protocol == "PLAINTEXT"


def test_without_any_definition_the_settings_apply_as_before(home: Path) -> None:
    (home / "connections.yaml").unlink()

    assert load_connections() == {}
    assert connection_to("", KafkaConnection).servers == "127.0.0.1:9092"
    assert connection_to("", GatewayConnection).url == "http://127.0.0.1:8888"
    assert java_properties(connection_to("", KafkaConnection)) == {}
    with pytest.raises(ConfigError, match=r"no connection 'events' in .*connections.yaml"):
        named_connection("events", KafkaConnection)
