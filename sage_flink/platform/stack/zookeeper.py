"""ZooKeeper from Flink's own wheel: it stores the state that must survive a dead JobManager.

One server, a few kilobytes of data: the jobs, their last checkpoints, the current leader. The bulk
(job graphs, checkpoints) is in files; ZooKeeper only holds their paths.
"""

import os
import socket
from pathlib import Path

from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import PROBE_TIMEOUT_S, Server
from sage_flink.platform.stack.stack_directory import StackDirectory

# Small and quick to start: this server answers only a few requests per second.
JAVA_OPTIONS = (
    "-Xmx48m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dlog4j2.level=WARN",
)


def properties(data: Path, ports: Ports) -> dict[str, str | int]:
    """The server's zoo.cfg: one server, loopback only."""
    return {
        "dataDir": str(data),
        "clientPort": ports["zookeeper"],
        "clientPortAddress": "127.0.0.1",
        # A session cannot be shorter than two ticks.
        "tickTime": 500,
        "maxSessionTimeout": 60_000,
        "maxClientCnxns": 100,
        # The admin web page would need another port.
        "admin.enableServer": "false",
        "4lw.commands.whitelist": "ruok",
        "autopurge.snapRetainCount": 3,
        "autopurge.purgeInterval": 1,
        # Kilobytes that a new log file allocates; the default is 64 MiB.
        "preAllocSize": 1024,
    }


def is_ok(port: int) -> bool:
    """Whether the ZooKeeper on ``port`` serves requests.

    Source: ZooKeeper administrator's guide, the four letter word ``ruok``.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"ruok")
            return connection.recv(4) == b"imok"
    except OSError:
        return False


def command(directory: StackDirectory, settings: Path) -> tuple[str, ...]:
    """The server's Java command line.

    Not Flink's zookeeper.sh, which starts two more JVMs to read its configuration.
    """
    jars = directory.pyflink / "lib"
    path = (*sorted(jars.glob("flink-dist-*.jar")), *sorted(jars.glob("log4j-*.jar")))
    main = "org.apache.flink.runtime.zookeeper.FlinkZooKeeperQuorumPeer"
    classes = os.pathsep.join(map(str, path))
    arguments = ("--zkConfigFile", str(settings), "--peerId", "1")
    return ("java", *JAVA_OPTIONS, "-cp", classes, main, *arguments)


def zookeeper(directory: StackDirectory, ports: Ports, _secured: bool = False) -> Server:
    """The server, on ``ports['zookeeper']``; open on loopback also in a secured stack."""
    settings = directory.conf("zookeeper") / "zoo.cfg"

    def prepare() -> None:
        directory.require(directory.pyflink / "lib")
        for folder in (directory.data("zookeeper"), settings.parent):
            folder.mkdir(parents=True, exist_ok=True)
        lines = properties(directory.data("zookeeper"), ports).items()
        settings.write_text("".join(f"{key}={value}\n" for key, value in lines))

    return Server(
        name="zookeeper",
        command=command(directory, settings),
        folder=directory.data("zookeeper"),
        ports=("zookeeper",),
        url=f"127.0.0.1:{ports['zookeeper']}",
        prepare=prepare,
        ready=lambda: is_ok(ports["zookeeper"]),
    )
