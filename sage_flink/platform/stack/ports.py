"""Which port each server listens on, chosen once and kept in ``stack.json``.

The usual port where it is free, so that what people know works; else the first free one a
hundred further, so that it is still recognised. A choice holds until somebody else takes it.
"""

import json
import socket
from collections.abc import Callable, Iterable, Mapping

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.home import Home

Ports = Mapping[str, int]

# Below 32768, where Linux hands out ports of its own: a server's port there may be gone any time.
USUAL: dict[str, int] = {
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
    """Whether a server could listen on ``port`` of every address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it the minute after a server's end (TIME_WAIT) would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen()
        except OSError:
            return False
    return True


def choose(
    kept: Ports,
    *,
    ours: Iterable[str] = (),
    free: Callable[[int], bool] = is_free,
    usual: Ports = USUAL,
) -> dict[str, int]:
    """One port for each name of ``usual``, no two alike.

    A port of ``kept`` stays when it is free or its name is in ``ours`` (our own server has it).

    Raises:
        StackError: every candidate of a name is taken.
    """
    ours = frozenset(ours)
    chosen: dict[str, int] = {}
    for name, first in usual.items():
        old = kept.get(name)
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
                "end what listens there"
            )
        chosen[name] = found
    return chosen


def kept_ports(home: Home) -> dict[str, int]:
    """The ports noted in ``stack.json``; empty before the first start or when unreadable."""
    try:
        ports = json.loads(home.notes.read_text())["ports"]
        return {str(name): int(port) for name, port in ports.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # a damaged note is written anew at the next start


def write_notes(home: Home, ports: Ports) -> None:
    """``stack.json``: the addresses that ``Settings`` reads, and the ports."""
    notes = {
        "gateway_url": f"http://127.0.0.1:{ports['gateway']}",
        "kafka_servers": f"127.0.0.1:{ports['kafka']}",
        "flink_url": f"http://127.0.0.1:{ports['flink']}",
        "milvus_url": f"http://127.0.0.1:{ports['milvus']}",
        "influxdb_url": f"http://127.0.0.1:{ports['influxdb']}",
        "influxdb_org": "sage",
        "ports": dict(ports),
    }
    scratch = home.notes.with_suffix(".new")
    scratch.write_text(json.dumps(notes, indent=2) + "\n")
    scratch.replace(home.notes)
