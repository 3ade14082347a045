"""Kafka 4.3, one node, KRaft: broker and controller in one process."""

import base64
import socket
import struct
import subprocess
import uuid
from pathlib import Path

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.part import PROBE_TIMEOUT_S, Part
from sage_flink.platform.stack.ports import Ports

RECORD_BYTES_MAX = 32 * 1024 * 1024
FORMAT_TIMEOUT_S = 60


def properties(data: Path, ports: Ports) -> dict[str, str | int]:
    """The broker's settings; records are kept for ever, because a replay must find them."""
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
        # One node: no second copy to wait for, and few partitions for the broker's own topics.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # A job that is away for longer loses the transactions that it left open.
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


def java(home: Home, *options: str) -> tuple[str, ...]:
    """A Java command line with the broker's jars."""
    return ("java", *options, "-cp", f"{home.root / 'lib' / 'kafka'}/*")


def format_command(home: Home, settings: Path, cluster: str) -> tuple[str, ...]:
    """The command that gives an empty data folder its cluster id."""
    tool = (*java(home), "kafka.tools.StorageTool", "format", "--ignore-formatted")
    # The id within the word: one in 64 begins with a dash, and would be taken for an option.
    return (*tool, f"--cluster-id={cluster}", f"--config={settings}")


def format_storage(home: Home, settings: Path) -> None:
    """Give an empty data folder a cluster id of its own.

    Raises:
        StackError: Kafka's own tool refused; its words are kept.
    """
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = format_command(home, settings, cluster)
    done = subprocess.run(
        tool, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise StackError(
            f"kafka: formatting {home.data('kafka')} failed: "
            f"{(done.stderr or done.stdout).strip()[-500:]}; move that folder away to start empty"
        )


def kafka(home: Home, ports: Ports) -> Part:
    """The broker, on ``ports['kafka']``."""
    settings = home.conf("kafka") / "server.properties"

    def prepare() -> None:
        home.need(home.root / "lib" / "kafka")
        data = home.data("kafka")
        data.mkdir(parents=True, exist_ok=True)
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(
            "".join(f"{key}={value}\n" for key, value in properties(data, ports).items())
        )
        if not (data / "meta.properties").exists():
            format_storage(home, settings)

    options = (
        "-Xms128m",
        "-Xmx512m",
        "-XX:+ExitOnOutOfMemoryError",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    )
    return Part(
        name="kafka",
        command=(*java(home, *options), "kafka.Kafka", str(settings)),
        folder=home.data("kafka"),
        ports=("kafka", "kafka_controller"),
        url=f"127.0.0.1:{ports['kafka']}",
        prepare=prepare,
        ready=lambda: speaks_kafka(ports["kafka"]),
    )
