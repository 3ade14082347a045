"""Milvus 2.3 standalone: the server program of the ``milvus`` wheel, with its embedded etcd.

This module fills the wheel's template of milvus.yaml, and the program is supervised directly, so
that a signal reaches the server. Its internal components listen on every address of the machine;
Milvus 2.3 has no setting for that.

Secured, the port of clients demands TLS and root's password, and the HTTP API is off: Milvus 2.3
cannot serve it with TLS on that port, and would serve it without a password on the port of the
metrics. The internal components and etcd have neither TLS nor passwords in 2.3, so a firewall must
keep others from their ports.

The proxy's time tick (``SAGE_MILVUS_TICK_MS``) is the price of freshness. Measured on two busy
cores, an idle server with one loaded collection, 30 single rows, p50 (p95):

======  ===============  =======================  =============================
tick    CPU, idle        row visible to a query   Strong search after an insert
======  ===============  =======================  =============================
50 ms   9.7 % of a core  70 ms (213)              75 ms (141)
100 ms  7.8 %            103 ms (172)             97 ms (188)
200 ms  5.2 %            204 ms (445)             214 ms (407)
======  ===============  =======================  =============================

About half of the idle cost is Milvus' own. 50 ms, the default here, makes a row visible in a third
of the time for 4.5 % of a core; Milvus' own default is 200 ms, which a laptop on battery may want.

Rows that are not flushed are in growing segments, of which Milvus makes an interim index (IVF, some
thousands of rows on). A search probes ``nprobe`` of its ``nlist`` clusters whatever its filter is,
and never more: with Milvus' default of 16 of 128 a filtered search leaves out most rows that match.
Here it probes all, which is exact. Measured with 384 numbers a row on two busy cores, in 100 or 200
searches each, at 50,000 rows with larger segments, so that none was sealed: ms p50 / p99 (the
server's CPU ms of a search), and how many of the 523 rows that match a filtered search with top_k
2,000 found:

============  ================  ================  =================  =================  ======
clusters      10 k, top 10      10 k, filtered    50 k, top 10       50 k, filtered     found
============  ================  ================  =================  =================  ======
16 of 128     2.4 / 10 (2)      6.6 / 77 (4)      3.9 / 25 (4)       11 / 44 (9)        13 %
128 of 128    3.7 / 18 (3)      19 / 107 (7)      20 / 41 (18)       29 / 72 (19)       100 %
no index      11 / 28 (9)       29 / 77 (12)      38 / 200 (36)      28 / 160 (22)      100 %
============  ================  ================  =================  =================  ======

Of the top 10 only 16 clusters missed any, 0.1 %. 2,000 rows have no index yet: with each setting
all were found in 12 to 17 ms, the top 10 in 3 to 5 ms.
"""

import hashlib
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.stack.milvus_password import set_password
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import Server, no_op, responds
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_flink.platform.stack.stack_json import address

SERVICES = {
    "proxy": "milvus",
    "rootCoord": "milvus_root_coord",
    "queryCoord": "milvus_query_coord",
    "queryNode": "milvus_query_node",
    "indexNode": "milvus_index_node",
    "dataCoord": "milvus_data_coord",
    "dataNode": "milvus_data_node",
}
#: A row is searchable one to two ticks after its write, and each tick costs CPU time, also idle.
TICK_MS, TICK_MS_RANGE = 50, (10, 1000)
#: Milvus 2.3 has this path built in, without a setting for it: the ids of servers are there, and
#: the pid files of every user who may not write /run/milvus.
RUNTIME_FOLDER = Path("/tmp/milvus")  # noqa: S108
PLACEHOLDER = re.compile(r"\{\{\s*\w+\s*(?:\(\w+\))?\s*(?::(?P<default>[^}]*))?\}\}")


def tick_ms() -> int:
    """Milliseconds between two time ticks of the proxy: ``$SAGE_MILVUS_TICK_MS``.

    Raises:
        ConfigError: it is not a whole number of TICK_MS_RANGE.
    """
    text, (least, most) = os.environ.get("SAGE_MILVUS_TICK_MS", str(TICK_MS)), TICK_MS_RANGE
    if not (text.isdecimal() and least <= int(text) <= most):
        raise ConfigError(
            f"SAGE_MILVUS_TICK_MS must be a whole number from {least} to {most}, got {text!r}"
        )
    return int(text)


def settings(template: str, data: Path, conf: Path, ports: Ports) -> dict[str, Any]:
    """milvus.yaml: the template's defaults, our folders and ports, loopback addresses."""
    filled = PLACEHOLDER.sub(lambda hole: (hole["default"] or "").strip(), template)
    tree: dict[str, Any] = yaml.safe_load(filled)
    tree["etcd"] |= {
        "endpoints": f"127.0.0.1:{ports['milvus_etcd']}",
        "data": {"dir": str(data / "etcd")},
        # The embedded etcd takes its ports from its own file only, whatever `endpoints` says.
        "config": {"path": str(conf / "etcd.yaml")},
    }
    tree["localStorage"]["path"] = str(data / "files")
    tree["rocksmq"]["path"] = str(data / "rocksmq")
    for service, port in SERVICES.items():
        tree[service] |= {"ip": "127.0.0.1", "port": ports[port]}
    interim_index = tree["queryNode"]["segcore"]["interimIndex"]
    interim_index["nprobe"] = interim_index["nlist"]
    tree["proxy"]["timeTickInterval"] = tick_ms()
    tree["proxy"]["internalPort"] = ports["milvus_proxy_internal"]
    tree["log"] |= {"level": "warn", "stdout": True}
    tree["log"]["file"]["rootPath"] = ""
    # Seconds; with the default of 1800 a busy query node can delay a stop by half an hour.
    tree["common"]["gracefulStopTimeout"] = 3
    return tree


def security(tree: dict[str, Any], tls: Path) -> dict[str, Any]:
    """``tree`` with passwords and TLS; ``tls`` is the folder of the certificates."""
    server = str(tls / "server.pem")  # key and certificate
    files = {"serverPemPath": server, "serverKeyPath": server, "caPemPath": str(tls / "ca.pem")}
    common = tree["common"] | {
        "security": tree["common"]["security"] | {"authorizationEnabled": True, "tlsMode": 1}
    }
    proxy = tree["proxy"] | {"http": {"enabled": False}}
    return tree | {"tls": files, "common": common, "proxy": proxy}


def etcd_settings(data: Path, ports: Ports) -> dict[str, Any]:
    """etcd.yaml of the embedded etcd, on loopback."""
    client, peer = (
        f"http://127.0.0.1:{ports[name]}" for name in ("milvus_etcd", "milvus_etcd_peer")
    )
    return {
        "name": "default",
        "data-dir": str(data / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "log-level": "warn",
        "log-outputs": ["stderr"],
    }


def share_runtime_folder(folder: Path = RUNTIME_FOLDER) -> None:
    """Let every user of the machine create files in ``folder``.

    The first user's Milvus would create it for that user only, and all others would end at once.

    Raises:
        StackError: another user has created it for himself.
    """
    try:
        folder.mkdir(exist_ok=True)
        found = folder.lstat()  # a link of another user's must not be followed
        if found.st_uid == os.getuid() and not folder.is_symlink():
            folder.chmod(0o1777)  # as /tmp: everybody creates files, and removes only their own
    except OSError as error:
        raise StackError(f"milvus: {folder} cannot be made ({error}); free that name") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StackError(
            f"milvus: its folder {folder} belongs to another user (uid {found.st_uid}) "
            f"and cannot be written; ask that user or root for `chmod 1777 {folder}`"
        )


def write_conf(
    directory: StackDirectory, server: Path, ports: Ports, secured: bool = False
) -> None:
    """Write ``conf/milvus`` from the wheel's templates, and create the data folders."""
    data, conf = directory.data("milvus"), directory.conf("milvus")
    template = directory.require(server / "config.yaml.template").read_text()
    share_runtime_folder()
    for folder in (conf, data / "etcd", data / "files", data / "rocksmq", data / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    tree = settings(template, data, conf, ports)
    tree = security(tree, directory.tls) if secured else tree
    (conf / "milvus.yaml").write_text(yaml.safe_dump(tree))
    (conf / "etcd.yaml").write_text(yaml.safe_dump(etcd_settings(data, ports)))
    shutil.copy(server / "glog.conf", conf / "glog.conf")


def milvus(directory: StackDirectory, ports: Ports, secured: bool = False) -> Server:
    """The vector store on ``ports['milvus']``: gRPC, and HTTP in an open stack."""
    server = directory.root / "venv" / "milvus" / "server"
    # Milvus keeps pid files in one folder per machine; the alias separates two stacks.
    alias = hashlib.sha256(os.fsencode(directory.root)).hexdigest()[:12]
    url = address("milvus", ports, secured=secured)
    health = f"http://127.0.0.1:{ports['milvus_health']}/healthz"
    return Server(
        name="milvus",
        command=(str(server / "milvus"), "run", "standalone", "--alias", alias),
        folder=directory.data("milvus"),
        ports=tuple(name for name in ports if name.startswith("milvus")),
        url=url,
        env={
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(ports["milvus_health"]),
            "MILVUSCONF": str(directory.conf("milvus")),
            "LD_LIBRARY_PATH": str(server),
        },
        prepare=lambda: write_conf(directory, server, ports, secured),
        ready=lambda: responds(health, lambda response: "OK" in response.text),
        after_ready=partial(set_password, directory, url) if secured else no_op,
        stop_s=8,
        secured=secured,
    )
