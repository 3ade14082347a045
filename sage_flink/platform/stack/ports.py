"""TCP ports of the servers, chosen once and stored in ``stack.json``.

The default port where it is free, so that known addresses work; else the first free one in steps
of a hundred, so that it is still recognisable. A choice stays until another program takes the port.
"""

import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Self

from sage_flink.common.errors import StackError

Ports = Mapping[str, int]

# Below 32768: from there on Linux assigns ports to any program at any time.
DEFAULT_PORTS: dict[str, int] = {
    "kafka": 9092,
    "kafka_controller": 9093,
    "zookeeper": 2181,
    "flink": 8081,
    "flink_rpc": 6123,
    "flink_blob": 6124,
    "milvus": 19530,
    "milvus_health": 9091,
    "milvus_proxy_internal": 19529,
    "milvus_query_coord": 19531,
    "milvus_root_coord": 13334,
    "milvus_data_coord": 13333,
    "milvus_query_node": 21123,
    "milvus_index_node": 21121,
    "milvus_data_node": 21124,
    "milvus_etcd": 2379,
    "milvus_etcd_peer": 2380,
    "influxdb": 8086,
    "gateway": 8888,
}
STEP, TRIES_MAX = 100, 90


def is_free(port: int) -> bool:
    """Whether a server can now listen on ``port`` of every address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it the port would count as taken for a minute after a server's end (TIME_WAIT).
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen()
        except OSError:
            return False
    return True


class PortClaims:
    """Claims of this process on ports whose servers do not listen yet.

    A server listens seconds after its port was chosen; until then another user's ``sage up`` on
    this machine would choose the same port. A claim is an abstract unix socket: it belongs to the
    machine's network namespace, as ports do, needs no file, and ends with the process.
    """

    def __init__(self) -> None:
        self._claims = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.close()

    def take(self, port: int) -> bool:
        """Whether ``port`` is free and was not claimed by another process; it is claimed then."""
        if sys.platform != "linux":
            return is_free(port)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0sage-port-{port}")
        except OSError:
            claim.close()
            return False
        if not is_free(port):
            claim.close()
            return False
        self._claims.callback(claim.close)
        return True


def choose(
    saved: Ports,
    *,
    ours: Iterable[str] = (),
    free: Callable[[int], bool] = is_free,
    defaults: Ports = DEFAULT_PORTS,
) -> dict[str, int]:
    """One distinct port for each name of ``defaults``.

    A port of ``saved`` stays when it is free or its name is in ``ours`` (our server listens on it).

    Raises:
        StackError: every candidate of a name is taken.
    """
    ours = frozenset(ours)
    chosen: dict[str, int] = {}
    for name, first in defaults.items():
        old = saved.get(name)
        taken = set(chosen.values())
        if old is not None and old not in taken and (name in ours or free(old)):
            chosen[name] = old
            continue
        candidates = (first + STEP * n for n in range(TRIES_MAX))
        found = next((p for p in candidates if p not in taken and free(p)), None)
        if found is None:
            last = first + STEP * (TRIES_MAX - 1)
            raise StackError(
                f"{name}: no free port among {first}, {first + STEP} ... {last}; "
                "stop a program that listens on one of them"
            )
        chosen[name] = found
    return chosen
