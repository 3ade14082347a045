"""Kafka 4.3, one node, KRaft: broker and controller in one process."""

import base64
import socket
import struct
import uuid
from pathlib import Path

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.java import run_java
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import PROBE_TIMEOUT_S, Server
from sage_flink.platform.stack.stack_directory import StackDirectory

RECORD_BYTES_MAX = 32 * 1024 * 1024
FORMAT_TIMEOUT_S = 60


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
        # The default of 128 MiB is a quarter of the heap below.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }


def speaks_kafka(port: int) -> bool:
    """Whether a broker on ``port`` answers ApiVersions, which it does only once it serves clients.

    Source: Kafka protocol guide, ApiVersions request, version 0.
    """
    correlation = 7
    request = struct.pack(">hhih", 18, 0, correlation, -1)  # api key, version, id, no client name
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as reader:
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


def kafka(directory: StackDirectory, ports: Ports) -> Server:
    """The broker, on ``ports['kafka']``."""
    settings = directory.conf("kafka") / "server.properties"

    def prepare() -> None:
        directory.require(directory.root / "lib" / "kafka")
        data = directory.data("kafka")
        data.mkdir(parents=True, exist_ok=True)
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(
            "".join(f"{key}={value}\n" for key, value in properties(data, ports).items())
        )
        if not (data / "meta.properties").exists():
            format_storage(directory, settings)

    options = (
        "-Xms128m",
        "-Xmx512m",
        "-XX:+ExitOnOutOfMemoryError",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    )
    return Server(
        name="kafka",
        command=(*java(directory, *options), "kafka.Kafka", str(settings)),
        folder=directory.data("kafka"),
        ports=("kafka", "kafka_controller"),
        url=f"127.0.0.1:{ports['kafka']}",
        prepare=prepare,
        ready=lambda: speaks_kafka(ports["kafka"]),
    )
