"""ZooKeeper from Flink's own wheel: where Flink writes down what must outlive its JobManager.

One server, a few kilobytes of data: which jobs there are, their last checkpoints, who leads. The
bulk (job graphs, checkpoints) lies in files, which ZooKeeper only names.
"""

import os
import socket
from pathlib import Path

from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.part import PROBE_TIMEOUT_S, Part
from sage_flink.platform.stack.ports import Ports

# Small, quick to start, and not in the way of two cores: it answers a few requests a second.
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
        # Its own web page would need a port of its own.
        "admin.enableServer": "false",
        "4lw.commands.whitelist": "ruok",
        "autopurge.snapRetainCount": 3,
        "autopurge.purgeInterval": 1,
        # Kilobytes that a new log file takes at once; the default is 64 MiB.
        "preAllocSize": 1024,
    }


def is_ok(port: int) -> bool:
    """Whether a ZooKeeper on ``port`` says that it serves.

    Source: ZooKeeper administrator's guide, the four letter word ``ruok``.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"ruok")
            return connection.recv(4) == b"imok"
    except OSError:
        return False


def command(home: Home, settings: Path) -> tuple[str, ...]:
    """The server's Java command line.

    Not Flink's zookeeper.sh, which starts two more JVMs to read its configuration.
    """
    jars = home.pyflink / "lib"
    path = (*sorted(jars.glob("flink-dist-*.jar")), *sorted(jars.glob("log4j-*.jar")))
    main = "org.apache.flink.runtime.zookeeper.FlinkZooKeeperQuorumPeer"
    classes = os.pathsep.join(map(str, path))
    given = ("--zkConfigFile", str(settings), "--peerId", "1")
    return ("java", *JAVA_OPTIONS, "-cp", classes, main, *given)


def zookeeper(home: Home, ports: Ports) -> Part:
    """The server, on ``ports['zookeeper']``."""
    settings = home.conf("zookeeper") / "zoo.cfg"

    def prepare() -> None:
        home.need(home.pyflink / "lib")
        for folder in (home.data("zookeeper"), settings.parent):
            folder.mkdir(parents=True, exist_ok=True)
        lines = properties(home.data("zookeeper"), ports).items()
        settings.write_text("".join(f"{key}={value}\n" for key, value in lines))

    return Part(
        name="zookeeper",
        command=command(home, settings),
        folder=home.data("zookeeper"),
        ports=("zookeeper",),
        url=f"127.0.0.1:{ports['zookeeper']}",
        prepare=prepare,
        ready=lambda: is_ok(ports["zookeeper"]),
    )
