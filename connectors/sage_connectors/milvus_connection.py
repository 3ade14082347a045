"""How a client of pymilvus is opened, and which of its errors are a wrong setting."""

import logging
import re
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]  # installed with pymilvus

from sage_connectors.milvus_client import MilvusClient, MilvusException, message_of, utility
from sage_connectors.tls import Tls
from sage_flink.common.connections import MilvusConnection
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.proxies import bypass_grpc_proxy

#: Whole seconds: pymilvus 2.5 ignores a timeout that is not an int, and tries for minutes.
CONNECT_TIMEOUT_S = 5
T = TypeVar("T")
#: Milvus's codes: not authenticated, no such database.
UNAUTHENTICATED, NO_DATABASE = frozenset({1800, 65}), 800


def open_client(server: MilvusConnection, place: str = "") -> Any:
    """A client of the server, logged in, in its database; ``place`` follows it in errors.

    Raises:
        ConfigError: a secret is not there, or the server refuses TLS, login or database; the
            message names the setting.
        StoreUnavailable: the server does not answer.
    """
    # It logs every error that it raises, ten lines each; here they are wrapped and raised.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    bypass_grpc_proxy(server.url)
    Tls(server.where, server.ca).check(server.url)
    options: dict[str, Any] = {"server_pem_path": server.ca} if server.ca else {}
    options |= {"password": server.secret("password"), "token": server.secret("token")}
    return check(
        server,
        lambda: MilvusClient(
            uri=server.url,
            user=server.user,
            db_name=server.database,
            timeout=CONNECT_TIMEOUT_S,
            # An alias of its own: else all clients of a URL share one connection, and the first
            # to close it closes it for all.
            alias=f"sage-{uuid.uuid4().hex}",
            **options,
        ),
        place,
    )


def check(server: MilvusConnection, ask: Callable[[], T], place: str = "") -> T:
    """What ``ask`` returns.

    Raises:
        ConfigError: the server refuses a setting of the connection; the message names it.
        StoreUnavailable: the server does not answer.
    """
    try:
        return ask()
    except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        if setting := refused_setting(server, error):
            raise ConfigError(f"{server.where}: {setting}: {message_of(error)}") from error
        raise StoreUnavailable(
            f"Milvus at {server.url}{place}: connect failed: {message_of(error)}; "
            "`sage ps` shows its state"
        ) from error


def server_version(client: Any) -> str:
    """The version of the server."""
    return str(utility.get_server_version(using=client._using, timeout=CONNECT_TIMEOUT_S))


def is_before_2_5(version: str) -> bool:
    """Whether it is that of a Milvus without BM25; milvus-lite has versions of its own.

    >>> is_before_2_5("v2.3.5"), is_before_2_5("2.10.0"), is_before_2_5("litevecdb-0.1.0")
    (True, False, False)
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < (2, 5)


def refused_setting(server: MilvusConnection, error: Exception) -> str:
    """The field of the connection that the server does not accept; empty for any other error."""
    code: Any = getattr(error, "code", None)  # a method where the error is grpc's
    code = code() if callable(code) else code
    text = message_of(error).lower()
    if code == grpc.StatusCode.UNAUTHENTICATED or code in UNAUTHENTICATED or "auth check" in text:
        return "token" if server.token else "user, password" if server.user else "token or user"
    if code == NO_DATABASE or "database not found" in text:
        return "database"
    return ""
