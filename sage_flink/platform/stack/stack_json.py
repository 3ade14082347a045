"""``stack.json``: ports, addresses and mode of the stack, and the connections to its servers."""

import json
from typing import Any

from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.stack_directory import StackDirectory

#: The user of Kafka and InfluxDB, and InfluxDB's organisation.
USER = ORG = "sage"


def saved_ports(directory: StackDirectory) -> dict[str, int]:
    """The ports stored in ``stack.json``; empty before the first start or when unreadable."""
    try:
        return {str(name): int(port) for name, port in _read(directory)["ports"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # the next start rewrites a damaged file


def is_secured(directory: StackDirectory) -> bool:
    """Whether the stack is secured: as stored, else whether it has certificates.

    A damaged file must not open a stack that was secured.
    """
    try:
        return bool(_read(directory)["secured"])
    except (OSError, ValueError, KeyError, TypeError):
        return directory.tls.exists()


def write_stack_json(directory: StackDirectory, ports: Ports, *, secured: bool = False) -> None:
    """Write ``stack.json``: the addresses that ``Settings`` reads, mode, ports and connections.

    A secret is the reference ``file:PATH`` of its key file.
    """
    urls = {
        name: address(name, ports, secured=secured) for name in ("gateway", "milvus", "influxdb")
    }
    content = {
        **{f"{name}_url": url for name, url in urls.items()},
        "kafka_servers": f"127.0.0.1:{ports['kafka']}",
        "flink_url": f"http://127.0.0.1:{ports['flink']}",
        "influxdb_org": ORG,
        "secured": secured,
        "connections": connections(directory, ports) if secured else {},
        "ports": dict(ports),
    }
    scratch = directory.stack_json.with_suffix(".new")
    scratch.write_text(json.dumps(content, indent=2) + "\n")
    scratch.replace(directory.stack_json)


def address(name: str, ports: Ports, *, secured: bool) -> str:
    """The URL of a server that speaks HTTP."""
    return f"{'https' if secured else 'http'}://127.0.0.1:{ports[name]}"


def connections(directory: StackDirectory, ports: Ports) -> dict[str, dict[str, str]]:
    """The connections to the servers of a secured stack, by name."""
    ca = str(directory.tls / "ca.pem")
    key = {
        name: f"file:{directory.key(name)}" for name in ("kafka", "milvus", "influxdb", "gateway")
    }
    url = {name: address(name, ports, secured=True) for name in ("milvus", "influxdb", "gateway")}
    return {
        "kafka": {
            "kind": "kafka",
            "servers": f"127.0.0.1:{ports['kafka']}",
            "protocol": "SASL_SSL",
            "mechanism": "SCRAM-SHA-512",
            "username": USER,
            "password": key["kafka"],
            "ca": ca,
        },
        "milvus": {
            "kind": "milvus",
            "url": url["milvus"],
            "user": "root",
            "password": key["milvus"],
            "ca": ca,
        },
        "influxdb": {
            "kind": "influxdb",
            "url": url["influxdb"],
            "org": ORG,
            "token": key["influxdb"],
            "ca": ca,
        },
        "gateway": {"kind": "gateway", "url": url["gateway"], "key": key["gateway"], "ca": ca},
    }


def _read(directory: StackDirectory) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(directory.stack_json.read_text())
    return content
