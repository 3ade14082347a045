"""The local stack: real servers, supervised, in one folder.

Kafka, Flink with its ZooKeeper, Milvus, InfluxDB and the gateway run as ordinary processes under
supervisord.
Everything of a checkout lies in ``$SAGE_HOME``: configuration, data, logs, keys; two checkouts
can be up side by side, each on ports of its own.
"""

from sage_flink.platform.stack.lifecycle import down, up
from sage_flink.platform.stack.status import PartStatus, address, log_path, processes, status

__all__ = ["PartStatus", "address", "down", "log_path", "processes", "status", "up"]
