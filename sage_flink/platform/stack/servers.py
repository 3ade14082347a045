"""Registry of the local stack's servers, in the order in which commands show them."""

from collections.abc import Callable, Collection

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

SERVERS: dict[str, Callable[[StackDirectory, Ports], Server]] = {
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
