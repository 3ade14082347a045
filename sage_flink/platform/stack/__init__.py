"""Local stack: real servers as supervised processes, all files in one folder.

Kafka, Flink with its ZooKeeper, Milvus, InfluxDB and the gateway run as ordinary processes under
supervisord. ``$SAGE_HOME`` holds the configuration, data, logs and keys of one checkout; the
stacks of two checkouts can run at the same time, each on its own ports. A stack is open on
loopback, or secured by TLS and passwords.
"""

from sage_flink.platform.stack.lifecycle import down, up
from sage_flink.platform.stack.status import (
    ServerStatus,
    address,
    log_path,
    processes,
    security,
    status,
)

__all__ = ["ServerStatus", "address", "down", "log_path", "processes", "security", "status", "up"]
