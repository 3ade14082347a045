"""Registry of the local stack's servers, in the order in which commands show them."""

from collections.abc import Collection
from typing import Protocol

from sage_flink.common.errors import ConfigError
from sage_flink.platform.stack.flink import jobmanager, taskmanager
from sage_flink.platform.stack.gateway import gateway
from sage_flink.platform.stack.influxdb import influxdb
from sage_flink.platform.stack.kafka import kafka
from sage_flink.platform.stack.milvus import milvus
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import Server
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.zookeeper import zookeeper


class MakeServer(Protocol):
    """Describes one server of the stack; ``secured`` is the stack's mode."""

    def __call__(self, directory: StackDirectory, ports: Ports, secured: bool = False, /) -> Server:
        """The server; nothing is written or started."""


SERVERS: dict[str, MakeServer] = {
    "kafka": kafka,
    "zookeeper": zookeeper,
    "jobmanager": jobmanager,
    "taskmanager": taskmanager,
    "milvus": milvus,
    "influxdb": influxdb,
    "gateway": gateway,
}
FLINK = ("jobmanager", "taskmanager")
# Servers that need others: a TaskManager needs its JobManager, which needs its ZooKeeper.
GROUPS: dict[str, tuple[str, ...]] = {
    "flink": ("zookeeper", *FLINK),
    "jobmanager": ("zookeeper", "jobmanager"),
    "taskmanager": ("zookeeper", *FLINK),
}


def select(only: Collection[str] | None) -> list[str]:
    """The names of the servers in ``only`` and those they need; all servers for None.

    Raises:
        ConfigError: a name is not a server.
    """
    if only is None:
        return list(SERVERS)
    if unknown := sorted(set(only) - set(SERVERS) - set(GROUPS)):
        raise ConfigError(
            f"no such server: {', '.join(unknown)}; the servers are {', '.join(SERVERS)}, "
            "and flink for both of Flink's"
        )
    wanted = {server for name in only for server in GROUPS.get(name, (name,))}
    return [name for name in SERVERS if name in wanted]
