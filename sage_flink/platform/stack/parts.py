"""The servers of the local stack, in the order in which they are shown."""

from collections.abc import Callable, Collection

from sage_flink.common.errors import ConfigError
from sage_flink.platform.stack.flink import jobmanager, taskmanager
from sage_flink.platform.stack.gateway import gateway
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.influxdb import influxdb
from sage_flink.platform.stack.kafka import kafka
from sage_flink.platform.stack.milvus import milvus
from sage_flink.platform.stack.part import Part
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.zookeeper import zookeeper

PARTS: dict[str, Callable[[Home, Ports], Part]] = {
    "kafka": kafka,
    "zookeeper": zookeeper,
    "jobmanager": jobmanager,
    "taskmanager": taskmanager,
    "milvus": milvus,
    "influxdb": influxdb,
    "gateway": gateway,
}
FLINK = ("jobmanager", "taskmanager")
# None of them is of use alone: a TaskManager needs its JobManager, which needs its memory.
GROUPS: dict[str, tuple[str, ...]] = {
    "flink": ("zookeeper", *FLINK),
    "jobmanager": ("zookeeper", "jobmanager"),
    "taskmanager": ("zookeeper", *FLINK),
}


def select(only: Collection[str] | None) -> list[str]:
    """The names of the parts that ``only`` asks for, all of them for None, with those they need.

    Raises:
        ConfigError: a name is not a part.
    """
    if only is None:
        return list(PARTS)
    if unknown := sorted(set(only) - set(PARTS) - set(GROUPS)):
        raise ConfigError(
            f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}, "
            "and flink for both of Flink's"
        )
    wanted = {part for name in only for part in GROUPS.get(name, (name,))}
    return [name for name in PARTS if name in wanted]
