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
"""

import base64
import contextlib
import hashlib
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import tenacity
import yaml

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import Server, no_op, responds
from sage_flink.platform.stack.stack_directory import StackDirectory, secret
from sage_flink.platform.stack.stack_json import address

ROOT, DEFAULT_PASSWORD = "root", "Milvus"
LOGIN_TIMEOUT_S, LOGIN_RETRY_S, LOGIN_MAX_S = 10.0, 0.5, 60.0
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


def set_password(directory: StackDirectory, url: str) -> None:
    """Give root the password of its key file, in place of the one that every Milvus starts with.

    By gRPC alone: pymilvus takes seconds to import, and this runs at each start.

    Raises:
        ConfigError: gRPC, which is installed with Milvus's client, is not installed.
        StackError: root has a third password, or the server does not answer.

    Source: milvus.proto, MilvusService.UpdateCredential.
    """
    try:
        import grpc  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ConfigError("Milvus's client is missing: pip install 'sage-flink[milvus]'") from error
    refused = grpc.StatusCode.UNAUTHENTICATED
    # After a kill Milvus waits for the session of its former proxy to expire, up to 30 s.
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, grpc.RpcError) and error.code() != refused
        ),
        wait=tenacity.wait_fixed(LOGIN_RETRY_S),
        stop=tenacity.stop_after_delay(LOGIN_MAX_S),
        reraise=True,
    )
    authority, password = (directory.tls / "ca.pem").read_bytes(), secret(directory, "milvus")
    try:
        retry(_log_in_or_set, authority, url, password)
    except grpc.RpcError as error:
        if error.code() != refused:
            raise StackError(
                f"milvus at {url}: root's password could not be set: {error.details()}; "
                f"see {directory.log('milvus')}"
            ) from error
        raise StackError(
            f"milvus: root at {url} has neither the password in {directory.key('milvus')} nor "
            f"Milvus's own; restore the key, or move {directory.data('milvus')} away to start empty"
        ) from error


def _log_in_or_set(authority: bytes, url: str, password: str) -> None:
    import grpc

    try:
        _call(authority, url, password, "GetVersion")
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            raise
        _set(authority, url, password)
        confirm = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(grpc.RpcError),
            wait=tenacity.wait_fixed(LOGIN_RETRY_S),
            stop=tenacity.stop_after_delay(LOGIN_MAX_S),
            reraise=True,
        )
        confirm(_log_in_or_set_again, authority, url, password)


def _log_in_or_set_again(authority: bytes, url: str, password: str) -> None:
    """Log in with the password that Milvus has stored; its proxy may still know the former one.

    It is notified once, and not if the session of a killed Milvus has not expired by then; it keeps
    the former password for good, and takes it for another change to the same.
    """
    import grpc

    try:
        _call(authority, url, password, "GetVersion")
    except grpc.RpcError:
        with contextlib.suppress(grpc.RpcError):
            _set(authority, url, password)
        raise


def _set(authority: bytes, url: str, password: str) -> None:
    change = _update_credential(DEFAULT_PASSWORD, password)
    _call(authority, url, DEFAULT_PASSWORD, "UpdateCredential", change)


def _call(authority: bytes, url: str, password: str, method: str, message: bytes = b"") -> None:
    """Call Milvus as root; what it answers is ignored.

    Raises:
        grpc.RpcError: UNAUTHENTICATED for a wrong password.
    """
    import grpc

    login = base64.b64encode(f"{ROOT}:{password}".encode()).decode()
    credentials = grpc.ssl_channel_credentials(authority)
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.secure_channel(url.removeprefix("https://"), credentials, options) as channel:
        call = channel.unary_unary(f"/milvus.proto.milvus.MilvusService/{method}")
        call(message, timeout=LOGIN_TIMEOUT_S, metadata=(("authorization", login),))


def _update_credential(old: str, new: str) -> bytes:
    """The protobuf message: user, old and new password are the fields 2, 3 and 4."""
    encoded = (base64.b64encode(password.encode()) for password in (old, new))
    fields = enumerate((ROOT.encode(), *encoded), start=2)
    # Wire type 2: length and bytes. All are shorter than 128 bytes, so a length is one byte.
    return b"".join(bytes((number << 3 | 2, len(value))) + value for number, value in fields)


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
