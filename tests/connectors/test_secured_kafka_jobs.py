"""A job that reads and writes a secured topic: each record once, the secret nowhere."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import secured_registry as registry
import yaml
from minicluster import QUIET, restore_environment, wait_for_workers
from secured_broker import PASSWORD, TOKEN_SECRET, USER, SecuredBroker, secured_broker
from secured_registry import secured_registry, write_certificates
from waiting import wait_until

import sage_flink as sage
from sage_connectors import Avro, kafka
from sage_connectors.formats.schema_registry import frame
from sage_connectors.kafka_client import drain, ensure_topic, feed
from sage_flink.common import ConfigError, Record, Rejected
from sage_flink.common.connections import KafkaConnection
from sage_flink.common.connections_file import named_connection
from sage_flink.flow import FlinkOptions

pytestmark = [pytest.mark.flink, pytest.mark.timeout(600), *QUIET]
RECORDS = 200


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    yield from restore_environment()
    wait_for_workers()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with secured_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(params=["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER", "mTLS"])
def events(
    request: pytest.FixtureRequest,
    broker: SecuredBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> KafkaConnection:
    """The connection ``events`` of the settings, once for each way to log in."""
    none = {"mechanism": None, "username": None, "password": None}
    folder = broker.folder
    changes = {
        "OAUTHBEARER": {
            **none,
            "mechanism": "OAUTHBEARER",
            "token_url": broker.token_url,
            "client_id": USER,
            "client_secret": f"file:{folder / 'token-secret'}",
        },
        "mTLS": {
            **none,
            "protocol": "SSL",
            "certificate": str(folder / "client.pem"),
            "key": str(folder / "client.key"),
        },
    }.get(request.param, {"mechanism": request.param})
    listener = "MTLS" if request.param == "mTLS" else "SASL"
    fields = {**broker.fields(listener, **changes), "properties": {"client.rack": "a"}}
    file = tmp_path / "connections.yaml"
    file.write_text(yaml.safe_dump({"events": fields}))
    monkeypatch.setenv("SAGE_CONNECTIONS", str(file))
    return named_connection("events", KafkaConnection)


def reject_odd(record: Record) -> list[bytes]:
    assert isinstance(record.value, bytes)
    if record.value.endswith(b"7"):
        raise Rejected("it ends in 7")
    return [record.value]


def test_a_job_reads_and_writes_a_secured_topic_exactly_once(
    events: KafkaConnection, broker: SecuredBroker, tmp_path: Path
) -> None:
    job = f"secured-{uuid.uuid4().hex[:8]}"
    ensure_topic(f"{job}.in", 2, events)
    feed(f"{job}.in", [(None, b"%d" % n) for n in range(RECORDS)], events)
    graph = (
        sage.flow.read("in", kafka(f"{job}.in", connection="events", bounded=True))
        .flat_map("check", reject_odd)
        .write("out", kafka("{job}.out", connection="events"))
        .dead_letters_to(kafka("{job}.dead-letters", connection="events"))
    )

    options = FlinkOptions(
        target="local", checkpoint_interval_s=0.5, checkpoints=(tmp_path / "state").as_uri()
    )
    sage.flow.submit(graph, name=job, options=options)
    wait_until(lambda: held(f"{job}.dead-letters", events) == RECORDS // 10, 300, "dead letters")

    written = sorted(int(record.value) for record in drain(f"{job}.out", events))
    assert written == [n for n in range(RECORDS) if n % 10 != 7]
    for place, content in everything_written(tmp_path, events, job):
        for secret in (PASSWORD, TOKEN_SECRET):
            assert secret.encode() not in content, place


def held(topic: str, events: KafkaConnection) -> int:
    try:
        return len(list(drain(topic, events)))
    except ConfigError:
        return 0


def everything_written(
    tmp_path: Path, events: KafkaConnection, job: str
) -> Iterator[tuple[str, bytes]]:
    for file in tmp_path.rglob("*"):
        if file.is_file():
            yield str(file), file.read_bytes()
    for record in drain(f"{job}.dead-letters", events):
        yield record.id, repr(record).encode()
    for process in psutil.process_iter():
        try:
            yield f"process {process.pid}", " ".join(process.cmdline()).encode()
        except psutil.Error:
            continue


def copy_by_schemas(job: str) -> sage.flow.Graph:
    """A copy of a topic, decoded and encoded by the schemas of the connection ``schemas``."""
    read = kafka(f"{job}.in", connection="events", bounded=True, format=Avro(connection="schemas"))
    encode = Avro(registry.AVRO_SCHEMA, connection="schemas")
    return (
        sage.flow.read("in", read)
        .write("out", kafka("{job}.out", connection="events", format=encode))
        .dead_letters_to(kafka("{job}.dead-letters", connection="events"))
    )


def test_a_job_decodes_and_encodes_by_the_schemas_of_a_secured_registry(
    broker: SecuredBroker,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, folder = f"schemas-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("registry")
    write_certificates(folder)
    monkeypatch.setenv("SAGE_CONNECTIONS", str(tmp_path / "connections.yaml"))
    options = FlinkOptions(
        target="local", checkpoint_interval_s=0.5, checkpoints=(tmp_path / "state").as_uri()
    )

    with secured_registry(folder) as url:

        def graph(password: str) -> sage.flow.Graph:
            schemas = {"kind": "schema_registry", "url": url, "username": registry.USER}
            schemas |= {"password": f"file:{folder}/{password}", "ca": f"{folder}/ca.pem"}
            written = {"events": broker.fields(mechanism="PLAIN"), "schemas": schemas}
            (tmp_path / "connections.yaml").write_text(yaml.safe_dump(written))
            return copy_by_schemas(job)

        with pytest.raises(ConfigError, match=r"'schemas' .*: username, password: not accepted"):
            sage.flow.submit(graph("wrong"), name=job, options=options)

        events = named_connection("events", KafkaConnection)
        messages = [frame(1, b"\x06oak"), frame(3, b"\x06elm")]
        feed(f"{job}.in", [(None, each) for each in messages], events)
        sage.flow.submit(graph("secret"), name=job, options=options)
        wait_until(lambda: held(f"{job}.out", events) == len(messages), 300, "messages")

        values = {record.value for record in drain(f"{job}.out", events)}
        assert values == {frame(1, b"\x06oak"), frame(1, b"\x06elm")}
        for place, content in everything_written(tmp_path, events, job):
            for secret in (registry.SECRET, registry.BASIC):
                assert secret.encode() not in content, place
