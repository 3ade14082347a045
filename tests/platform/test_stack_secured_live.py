"""A secured Kafka, Milvus and InfluxDB in a stack of their own: who gets in, where secrets are.

The tests run in their order: the last one opens the stack and secures it again.
"""

import json
import socket
import ssl
import stat
import uuid
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import psutil
import pytest

from benchmark_sage.recovery.cluster import prepare
from sage_connectors.server_check import check_server
from sage_flink.common import ConfigError, Settings, sage_home
from sage_flink.common.connections import KINDS
from sage_flink.common.connections_file import connection_to
from sage_flink.platform import stack
from sage_flink.platform.doctor.connections import read_connections
from sage_flink.platform.stack.kafka import SCRAM, speaks_kafka
from sage_flink.platform.stack.server import trusting

pytestmark = [
    pytest.mark.service,
    pytest.mark.alone,
    pytest.mark.timeout(400),
    # kafka-python leaves the sockets of a refused client to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SERVERS = ("kafka", "milvus", "influxdb")
PORTS = ("kafka", "kafka_controller", "milvus", "influxdb")
#: The first connection to a cold broker can take long; a refused client would try for all of it.
TIMEOUT_S, REFUSED_MS = 60, 3_000


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """The running stack: its cluster, connections, ports and secrets."""
    cluster = prepare(tmp_path_factory.mktemp("stack") / "home", sage_home())
    try:
        cluster.up(*SERVERS, secured=True)
        content = json.loads((cluster.home / "stack.json").read_text())
        files = [file for file in (cluster.home / "keys").iterdir() if file.is_file()]
        ca = cluster.home / "keys" / "tls" / "ca.pem"
        yield SimpleNamespace(
            cluster=cluster,
            home=cluster.home,
            ca=ca,
            keys={file.name: file.read_text().strip() for file in files},
            ports=content["ports"],
            to=SimpleNamespace(**content["connections"]),
        )
    finally:
        cluster.down()


def kafka_options(secured, mechanism="SCRAM-SHA-512", **more):
    return {
        "bootstrap_servers": secured.to.kafka["servers"],
        "bootstrap_timeout_ms": 1000 * TIMEOUT_S,
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(secured.ca),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": secured.to.kafka["username"],
        "sasl_plain_password": secured.keys["kafka"],
        **more,
    }


def topics(**options):
    from kafka import KafkaAdminClient

    with closing(KafkaAdminClient(**options)) as admin:
        return set(admin.list_topics())


def send(topic, value, **options):
    from kafka import KafkaProducer

    with closing(KafkaProducer(**options)) as producer:
        producer.send(topic, value).get(timeout=TIMEOUT_S)


def read(topic, **options):
    """The first value of the topic."""
    from kafka import KafkaConsumer

    start = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 1000 * TIMEOUT_S}
    with closing(KafkaConsumer(topic, **start, **options)) as consumer:
        return next(iter(consumer)).value


def collections(secured, *, url="", **login):
    from pymilvus import MilvusClient

    tls = {"server_pem_path": str(secured.ca), "server_name": "127.0.0.1"} if not url else {}
    uri, alias = url or secured.to.milvus["url"], uuid.uuid4().hex
    client = MilvusClient(uri=uri, timeout=TIMEOUT_S, alias=alias, **login, **tls)
    with closing(client):
        return client.list_collections()


def buckets(secured, token):
    url = f"{secured.to.influxdb['url']}/api/v2/buckets"
    headers = {"Authorization": f"Token {token}"} if token else {}
    return httpx.get(url, headers=headers, verify=trusting(secured.ca), timeout=TIMEOUT_S)


def test_clients_with_the_right_secrets_get_in(secured):
    for mechanism in ("PLAIN", *SCRAM):
        assert topics(**kafka_options(secured, mechanism)) == set()
    assert collections(secured, user="root", password=secured.keys["milvus"]) == []
    assert collections(secured, token=f"root:{secured.keys['milvus']}") == []
    names = {each["name"] for each in buckets(secured, secured.keys["influxdb"]).json()["buckets"]}
    assert {"ops", "flink"} <= names


@pytest.mark.parametrize("name", SERVERS)
def test_the_connections_of_its_notes_open_the_servers(secured, name, monkeypatch):
    monkeypatch.setenv("SAGE_HOME", str(secured.home))

    about = check_server(connection_to("", KINDS[name]))

    assert about.lower().startswith(name)


def test_the_doctor_reaches_the_servers(secured, monkeypatch):
    monkeypatch.setenv("SAGE_HOME", str(secured.home))

    found = {each.name: each.error for each in read_connections(Settings.load())}

    assert {name: found[name] for name in SERVERS} == dict.fromkeys(SERVERS, "")


@pytest.mark.parametrize("port", PORTS)
def test_a_client_that_does_not_trust_the_authority_does_not_connect(secured, port):
    with (
        socket.create_connection(("127.0.0.1", secured.ports[port]), timeout=TIMEOUT_S) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_client_without_tls_gets_no_answer(secured):
    assert not speaks_kafka(secured.ports["kafka"])
    assert not speaks_kafka(secured.ports["kafka_controller"])
    with grpc.insecure_channel(f"127.0.0.1:{secured.ports['milvus']}") as channel:
        version = channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")
        with pytest.raises(grpc.RpcError) as refused:
            version(b"", timeout=TIMEOUT_S)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    health = f"http://127.0.0.1:{secured.ports['influxdb']}/health"
    assert httpx.get(health, timeout=TIMEOUT_S).status_code == 400


@pytest.mark.parametrize("port", ["kafka", "kafka_controller"])
def test_kafka_refuses_a_client_without_a_password_on_both_listeners(secured, port):
    from kafka.errors import KafkaError

    server = f"127.0.0.1:{secured.ports[port]}"

    assert speaks_kafka(secured.ports[port], secured.ca)
    with pytest.raises(KafkaError):
        topics(
            **kafka_options(
                secured,
                security_protocol="SSL",
                bootstrap_servers=server,
                bootstrap_timeout_ms=REFUSED_MS,
            )
        )


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_kafka_refuses_a_wrong_password(secured, mechanism):
    from kafka.errors import KafkaError

    wrong = {"sasl_plain_password": "wrong", "bootstrap_timeout_ms": REFUSED_MS}
    with pytest.raises(KafkaError):
        topics(**kafka_options(secured, mechanism, **wrong))


@pytest.mark.parametrize(
    "login",
    [{}, {"user": "root", "password": "Milvus"}, {"user": "root", "password": ""}, {"token": "x"}],
)
def test_milvus_refuses_a_client_without_the_password_and_its_own_default(secured, login):
    with pytest.raises(grpc.RpcError) as refused:
        collections(secured, **login)

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_milvus_serves_no_http_besides_its_health_and_metrics(secured):
    port = secured.ports["milvus_health"]

    found = {
        path: httpx.get(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT_S).status_code
        for path in (
            "/healthz",
            "/api/v1/health",
            "/api/v1/credential/users",
            "/api/v1/collections",
        )
    }

    assert set(found.values()) - {found.pop("/healthz")} == {404}


@pytest.mark.parametrize("token", ["", "wrong"])
def test_influxdb_refuses_a_client_without_the_token(secured, token):
    assert buckets(secured, token).status_code == 401


def test_the_stack_stays_secured_and_does_not_change_while_it_runs(secured):
    secured.cluster.up(*SERVERS)

    assert {server.name for server in stack.status(secured.home) if server.secured} > set(SERVERS)
    with pytest.raises(ConfigError, match="runs secured"):
        secured.cluster.up(*SERVERS, secured=False)
    assert topics(**kafka_options(secured)) == set()


def test_a_broker_that_was_killed_is_back_with_its_records_and_its_password(secured):
    send("kept", b"a record", **kafka_options(secured))

    secured.cluster.kill("kafka")
    secured.cluster.up(*SERVERS)

    assert read("kept", **kafka_options(secured)) == b"a record"


def test_no_secret_is_in_a_log_a_readable_file_or_a_command_line(secured):
    lines = [
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ]
    files = [
        file
        for folder in ("logs", "conf", "run")
        for file in (secured.home / folder).rglob("*")
        if file.is_file()
    ]

    assert set(secured.keys) == {"kafka", "milvus", "influxdb", "influxdb-password"}
    for name, value in secured.keys.items():
        assert not any(value in line for line in lines), name
        holding = [file for file in files if value.encode() in file.read_bytes()]
        assert {file.name for file in holding} <= {"server.properties"}, name
        assert all(is_private(file) for file in holding), name
        assert value not in (secured.home / "stack.json").read_text()
    assert all(is_private(file) for file in secured.home.glob("keys/**/*") if file.is_file())


def is_private(file: Path) -> bool:
    return stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_stack_can_be_opened_and_secured_again_with_its_data(secured):
    servers = secured.to.kafka["servers"]
    secured.cluster.down()

    secured.cluster.up("kafka", "milvus", secured=False)
    assert "kept" in topics(bootstrap_servers=servers, bootstrap_timeout_ms=1000 * TIMEOUT_S)
    send("open", b"without a password", bootstrap_servers=servers)
    assert collections(secured, url=f"http://127.0.0.1:{secured.ports['milvus']}") == []
    secured.cluster.down()
    secured.cluster.up("kafka", "milvus", secured=True)

    assert read("open", **kafka_options(secured)) == b"without a password"
    assert collections(secured, user="root", password=secured.keys["milvus"]) == []
    with pytest.raises(grpc.RpcError):
        collections(secured, user="root", password="Milvus")
