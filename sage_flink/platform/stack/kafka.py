"""Kafka 4.3, one node, KRaft: broker and controller in one process.

Secured, both of its listeners demand TLS and a password: who reaches the controller's can change
any password. The broker itself logs in by PLAIN, whose password is in its settings (mode 0600), so
it needs no stored user to start; clients log in by SCRAM or PLAIN, as the same user. The SCRAM user
is stored through the broker's own admin API after each start, so that it fits data of an open stack
too, and no password is an argument of ``kafka-storage format``, which every user could read in
``/proc``. No authorizer: who has the password may do everything.

Source: KIP-554 (SCRAM by the admin API), KIP-651 (PEM).
"""

import base64
import socket
import struct
import uuid
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.stack.java import run_java
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import PROBE_TIMEOUT_S, Server, no_op, trusting
from sage_flink.platform.stack.stack_directory import StackDirectory, secret, write_private
from sage_flink.platform.stack.stack_json import USER

RECORD_BYTES_MAX = 32 * 1024 * 1024
FORMAT_TIMEOUT_S = 60
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
#: Kafka's minimum; the password is random, so more would only slow each log-in down.
ITERATIONS = 4096
ADMIN_TIMEOUT_MS = 15_000


def properties(data: Path, ports: Ports) -> dict[str, str | int]:
    """The broker's settings. Records are never deleted, because a replay must find them."""
    broker, controller = ports["kafka"], ports["kafka_controller"]
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "num.partitions": 4,
        "auto.create.topics.enable": "true",
        "message.max.bytes": RECORD_BYTES_MAX,
        "replica.fetch.max.bytes": RECORD_BYTES_MAX,
        "log.retention.ms": -1,
        "log.retention.bytes": -1,
        # One node: no second replica to wait for, and few partitions for the broker's own topics.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # A job that is down for longer loses its open transactions.
        "transaction.max.timeout.ms": 7_200_000,
        "group.initial.rebalance.delay.ms": 0,
        # The controller fences a broker without heartbeats, and every partition is then without a
        # leader. With one node that only turns a pause of the machine into an outage. A longer
        # time is also the wait of a broker that starts again after a crash.
        "broker.session.timeout.ms": 20_000,
        # The default of 128 MiB is a quarter of the heap below.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }


def security(tls: Path, password: str, ports: Ports) -> dict[str, str | int]:
    """The settings of a secured broker, which replace those of :func:`properties`.

    ``tls`` is the folder of the certificates. ``password`` needs no quoting.
    """
    broker, controller = ports["kafka"], ports["kafka_controller"]
    modules = "org.apache.kafka.common.security"
    login = f'username="{USER}" password="{password}" user_{USER}="{password}"'
    plain = f"{modules}.plain.PlainLoginModule required {login};"
    scram = {
        f"listener.name.sasl_ssl.{mechanism.lower()}.sasl.jaas.config": (
            f"{modules}.scram.ScramLoginModule required;"
        )
        for mechanism in SCRAM
    }
    return {
        "listeners": f"SASL_SSL://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"SASL_SSL://127.0.0.1:{broker}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SASL_SSL",
        "security.inter.broker.protocol": "SASL_SSL",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM)),
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": plain,
        "listener.name.controller.plain.sasl.jaas.config": plain,
        **scram,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tls / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tls / "ca.pem"),
    }


def speaks_kafka(port: int, authority: Path | None = None) -> bool:
    """Whether a broker on ``port`` answers ApiVersions, which it does only once it serves clients.

    A secured broker answers it before the log-in, over TLS; ``authority`` signed its certificate.

    Source: Kafka protocol guide, ApiVersions request, version 0.
    """
    correlation = 7
    request = struct.pack(">hhih", 18, 0, correlation, -1)  # api key, version, id, no client name
    try:
        context = None if authority is None else trusting(authority)
        plain = socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain as tcp:
            tcp.sendall(struct.pack(">i", len(request)) + request)
            with tcp.makefile("rb") as reader:
                answer = reader.read(10)  # length, correlation id, error code
        return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (correlation, 0)
    except OSError:
        return False


def java(directory: StackDirectory, *options: str) -> tuple[str, ...]:
    """A Java command line with the broker's jars."""
    return ("java", *options, "-cp", f"{directory.root / 'lib' / 'kafka'}/*")


def format_command(directory: StackDirectory, settings: Path, cluster: str) -> tuple[str, ...]:
    """The command that gives an empty data folder its cluster id."""
    tool = (*java(directory), "kafka.tools.StorageTool", "format", "--ignore-formatted")
    # One id in 64 starts with a dash: as a separate argument it would be parsed as an option.
    return (*tool, f"--cluster-id={cluster}", f"--config={settings}")


def format_storage(directory: StackDirectory, settings: Path) -> None:
    """Give an empty data folder a new cluster id.

    Raises:
        StackError: Kafka's own tool failed; the message holds its output.
    """
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = format_command(directory, settings, cluster)
    done = run_java(tool, timeout_s=FORMAT_TIMEOUT_S)
    if done.returncode:
        raise StackError(
            f"kafka: formatting {directory.data('kafka')} failed: "
            f"{(done.stderr or done.stdout).strip()[-500:]}; move that folder away to start empty"
        )


def store_scram_users(directory: StackDirectory, servers: str) -> None:
    """Store the password of the user for SCRAM, in place of an older one.

    Raises:
        ConfigError: Kafka's client is not installed.
        StackError: the broker refuses, or does not answer.
    """
    try:
        with warnings.catch_warnings():  # kafka-python 3.0 loads its schemas the old way
            warnings.simplefilter("ignore", DeprecationWarning)
            from kafka import KafkaAdminClient
            from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
            from kafka.errors import KafkaError
    except ModuleNotFoundError as error:
        raise ConfigError("the Kafka client is missing: pip install 'sage-flink[kafka]'") from error
    password = secret(directory, "kafka")
    try:
        client = KafkaAdminClient(
            bootstrap_servers=servers,
            bootstrap_timeout_ms=ADMIN_TIMEOUT_MS,
            security_protocol="SASL_SSL",
            ssl_cafile=str(directory.tls / "ca.pem"),
            sasl_mechanism="PLAIN",
            sasl_plain_username=USER,
            sasl_plain_password=password,
        )
        with closing(client) as admin:
            for name in SCRAM:  # one request each: the broker alters a user once in a request
                kind = ScramMechanism[name.replace("-", "_")]
                user = UserScramCredentialUpsertion(USER, kind, password, iterations=ITERATIONS)
                if refusal := admin.alter_user_scram_credentials([user])[USER]:
                    raise StackError(f"kafka: the password for {name} was refused: {refusal}")
    except (KafkaError, OSError) as error:
        raise StackError(
            f"kafka: the password could not be stored: {type(error).__name__}: {error}; "
            f"see {directory.log('kafka')}; a broker that runs with another key than "
            f"{directory.key('kafka')} takes it after `sage down` and `sage up`"
        ) from error


def kafka(directory: StackDirectory, ports: Ports, secured: bool = False) -> Server:
    """The broker, on ``ports['kafka']``."""
    settings = directory.conf("kafka") / "server.properties"
    authority = directory.tls / "ca.pem" if secured else None
    url = f"127.0.0.1:{ports['kafka']}"

    def prepare() -> None:
        directory.require(directory.root / "lib" / "kafka")
        data = directory.data("kafka")
        data.mkdir(parents=True, exist_ok=True)
        settings.parent.mkdir(parents=True, exist_ok=True)
        chosen = properties(data, ports)
        if secured:
            chosen |= security(directory.tls, secret(directory, "kafka"), ports)
        write_private(settings, "".join(f"{key}={value}\n" for key, value in chosen.items()))
        if not (data / "meta.properties").exists():
            format_storage(directory, settings)

    options = (
        "-Xms128m",
        "-Xmx1g",  # requests of up to RECORD_BYTES_MAX, of several clients, each held whole
        "-XX:+ExitOnOutOfMemoryError",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    )
    return Server(
        name="kafka",
        command=(*java(directory, *options), "kafka.Kafka", str(settings)),
        folder=directory.data("kafka"),
        ports=("kafka", "kafka_controller"),
        url=url,
        prepare=prepare,
        ready=lambda: speaks_kafka(ports["kafka"], authority),
        after_ready=partial(store_scram_users, directory, url) if secured else no_op,
        secured=secured,
    )
