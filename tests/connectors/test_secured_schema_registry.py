"""A schema registry over TLS with a login, by a named connection: what works, what is named."""

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from secured_registry import (
    AVRO_SCHEMA,
    BASIC,
    KEY_PASSWORD,
    PROTO_SCHEMA,
    SECRET,
    USER,
    WRONG,
    secured_registry,
    write_certificates,
)

import sage_connectors
from sage_connectors import Avro, Debezium, Protobuf, kafka
from sage_connectors.formats.schema_registry import frame
from sage_connectors.server_check import check_server
from sage_flink import flow
from sage_flink.common import ConfigError, Record, Rejected, StoreUnavailable
from sage_flink.common.connections import SchemaRegistryConnection, parse
from sage_flink.common.connections_file import named_connection
from sage_flink.flow.formats import Decode, Encode
from sage_flink.flow.yaml_form import from_yaml, to_yaml, vocabulary

#: Each open of a connection ends within this time, whatever is wrong.
pytestmark = pytest.mark.timeout(30)
NO_LOGIN: dict[str, str | None] = {"username": None, "password": None}
TOKEN = {**NO_LOGIN, "token": "file:{folder}/secret"}
CLIENT = {**NO_LOGIN, "certificate": "{folder}/client.pem", "key": "{folder}/client.key"}
LOCKED = {
    **NO_LOGIN,
    "certificate": "{folder}/locked.pem",
    "key": "{folder}/locked.key",
    "key_password": "file:{folder}/key-password",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("registry")
    write_certificates(made)
    return made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.delenv("SAGE_CONNECTIONS", raising=False)
    return tmp_path


def define(home: Path, folder: Path, url: str, **changes: str | None) -> SchemaRegistryConnection:
    """The connection ``schemas`` in the user's file."""
    fields: dict[str, str | None] = {
        "kind": "schema_registry",
        "url": url,
        "username": USER,
        "password": "file:{folder}/secret",
        "ca": "{folder}/ca.pem",
        **changes,
    }
    written = {key: text.format(folder=folder) for key, text in fields.items() if text is not None}
    (home / "connections.yaml").write_text(json.dumps({"schemas": written}))
    return named_connection("schemas", SchemaRegistryConnection)


def message(schema_id: int) -> Record:
    return Record("t/0/0", frame(schema_id, b"\x06oak"))


@pytest.mark.parametrize(
    ("server", "login"),
    [("server", {}), ("server", TOKEN), ("mutual", CLIENT), ("mutual", LOCKED)],
    ids=["password", "token", "mTLS", "mTLS with an encrypted key"],
)
def test_messages_are_written_and_read_with_every_way_to_log_in(
    folder: Path, home: Path, server: str, login: dict[str, str | None]
) -> None:
    with secured_registry(folder, server) as url:
        connection = define(home, folder, url, **login)

        raw = Avro(AVRO_SCHEMA, connection="schemas").encoder("t")(Record("", "oak"))
        (record,) = Avro(connection="schemas").decoder()(Record("t/0/0", raw))

        assert (raw, record.value) == (message(1).value, "oak")
        assert check_server(connection) == "schema registry, 1 subject"


def test_protobuf_and_debezium_use_the_connection_too(folder: Path, home: Path) -> None:
    with secured_registry(folder) as url:
        define(home, folder, url)
        raw = Protobuf(PROTO_SCHEMA, connection="schemas").encoder("t")(Record("", {"name": "oak"}))

        (record,) = Protobuf(connection="schemas").decoder()(Record("t/0/0", raw))
        rows = Debezium(avro=Avro(connection="schemas")).decoder()

        assert record.value == {"name": "oak"}
        with pytest.raises(Rejected, match="not a change event"):
            rows(message(1))


@pytest.mark.parametrize(
    ("server", "changes", "sentence"),
    [
        ("server", {"password": "file:{folder}/wrong"}, r"username, password: not accepted; .*/wr"),
        ("server", {"password": "env:ABSENT"}, "password: the environment variable ABSENT is not"),
        ("server", {**TOKEN, "token": "file:{folder}/wrong"}, r"token: the one in .*/wrong is not"),
        ("server", {**TOKEN, "token": "file:{folder}/lines"}, r"token: file:\S+ holds no print"),
        ("server", NO_LOGIN, "it wants a login; make a connection with username"),
        ("expired", {}, r"the certificate of 127.0.0.1:\d+ expired on \w{3} .*GMT"),
        ("elsewhere", {}, r"url: the certificate of .* is not for 127.0.0.1: it is for registry.e"),
        ("server", {"ca": "{folder}/other.pem"}, r"ca: the certificate of .* is not signed by ca"),
        ("server", {"ca": None}, r"is not signed by the authorities of this machine; set ca"),
        ("server", {"ca": "{folder}/secret"}, r"ca: .*/secret cannot be used"),
        ("plain", {}, r"url: 127.0.0.1:\d+ does not speak TLS"),
        ("mutual", NO_LOGIN, r"certificate: 127.0.0.1:\d+ refused the client: it wants one"),
        (
            "mutual",
            {**CLIENT, "certificate": "{folder}/stranger.pem", "key": "{folder}/stranger.key"},
            r"certificate: 127.0.0.1:\d+ refused the client: it does not accept .*/stranger.pem",
        ),
        (
            "mutual",
            {**LOCKED, "key_password": "file:{folder}/wrong"},
            r"certificate: .*/locked.pem with key .*/locked.key cannot be used",
        ),
        ("proxy", {}, r"certificate: .*400 The SSL certificate error"),
    ],
)
def test_a_wrong_setting_is_named_by_the_check_and_where_a_job_is_submitted(
    folder: Path, home: Path, server: str, changes: dict[str, str | None], sentence: str
) -> None:
    with secured_registry(folder, server) as url:
        connection = define(home, folder, url, **changes)
        ways = (
            lambda: check_server(connection),
            Decode(Avro(connection="schemas")).prepare,
            Encode(Avro(AVRO_SCHEMA, connection="schemas"), "t").prepare,
        )
        for way in ways:
            with pytest.raises(ConfigError, match=sentence) as caught:
                way()

            text = str(caught.value)
            assert text.startswith("connection 'schemas' (schema registry at https://127.0.0.1:")
            assert not [each for each in (SECRET, BASIC, KEY_PASSWORD, WRONG) if each in text]


def test_an_address_without_a_registry_is_named(folder: Path, home: Path) -> None:
    with secured_registry(folder) as url:
        connection = define(home, folder, f"{url}/apis")

        for way in (lambda: check_server(connection), Decode(Avro(connection="schemas")).prepare):
            with pytest.raises(ConfigError, match="url: no schema registry is there: 404"):
                way()


def test_a_login_that_is_changed_while_a_job_runs_is_waited_for(folder: Path, home: Path) -> None:
    password = home / "password"
    password.write_text(SECRET)
    with secured_registry(folder) as url:
        define(home, folder, url, password=f"file:{password}")
        decode = Avro(connection="schemas").decoder()

        password.write_text(WRONG)
        with pytest.raises(StoreUnavailable, match="username, password: not accepted") as caught:
            decode(message(7))
        password.unlink()
        with pytest.raises(StoreUnavailable, match=r"password: .* cannot be read here"):
            decode(message(7))
        password.write_text(SECRET)

        assert [record.value for record in decode(message(7))] == ["oak"]
    assert WRONG not in str(caught.value)


def test_a_graph_its_yaml_and_the_log_hold_the_reference_and_no_secret(
    folder: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with secured_registry(folder) as url:
        define(home, folder, url)
        source = kafka("orders", format=Avro(connection="schemas"))
        sink = kafka("out", format=Protobuf(PROTO_SCHEMA, connection="schemas"))
        graph = flow.read("in", source).write("out", sink).dead_letters_to(kafka("dead"))
        words = vocabulary(sage_connectors)
        yaml, pickled = to_yaml(graph, words), pickle.dumps(graph)
        (home / "connections.yaml").unlink()  # a worker has none

        on_worker = pickle.loads(pickled).by_name["in"].source.format
        assert [record.value for record in on_worker.decoder()(message(8))] == ["oak"]

    shown = (yaml, flow.explain(graph), repr(graph), repr(on_worker.server), caplog.text)
    for text in (*shown, pickled.decode("latin-1")):
        assert not [each for each in (SECRET, BASIC) if each in text]
    assert yaml.count("connection: schemas") == 2
    define(home, folder, "https://r:1")
    assert from_yaml(yaml, words) == graph


def test_a_registry_of_this_machine_is_reached_without_the_proxy(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with secured_registry(folder) as url:
        assert check_server(define(home, folder, url)) == "schema registry, 1 subject"


def test_the_address_of_the_connection_of_that_name_has_its_login(folder: Path, home: Path) -> None:
    fields = {"kind": "schema_registry", "url": "https://r:1", "token": f"file:{folder}/secret"}
    (home / "connections.yaml").write_text(json.dumps({"schema_registry": fields}))

    own, other = Avro(registry="https://r:1").server, Avro(registry="https://r:2").server

    assert own is not None
    assert own.security == "tls, token"
    assert other is not None
    assert other.security == "tls"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"url": "ftp://r"}, "url must be one URL of http or https"),
        ({"url": "https://a,https://b"}, "url must be one URL of http or https"),
        ({"url": f"https://me:{SECRET}@r"}, "url must be a URL without a user and password"),
        ({"password": ""}, "username and password go together"),
        ({"password": SECRET}, "password must be a reference"),
        ({"token": "env:TOKEN"}, "give token, or username and password, not both"),
        ({"key": "/key.pem"}, "certificate and key go together"),
        ({"key_password": "env:KEY"}, "certificate and key go together, and key_password"),
        ({"url": "http://r", "ca": "/ca.pem"}, "ca is for a URL of https"),
        ({"url": "http://r", "certificate": "/c", "key": "/k"}, "certificate is for a URL of http"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], sentence: str) -> None:
    good = {"kind": "schema_registry", "url": "https://r", "username": "u", "password": "env:P"}

    with pytest.raises(ConfigError, match=sentence) as caught:
        parse("schemas", {**good, **changes})

    assert SECRET not in str(caught.value)


def test_a_format_has_a_registry_or_a_connection(folder: Path, home: Path) -> None:
    define(home, folder, "https://r:1")

    for make in (
        lambda: Avro(registry="https://r:1", connection="schemas"),
        lambda: Protobuf(registry="https://r:1", connection="schemas"),
    ):
        with pytest.raises(ConfigError, match="give connection or registry, not both"):
            make()
    with pytest.raises(ConfigError, match=r"no connection 'scheme' .*: schemas"):
        Avro(connection="scheme")
