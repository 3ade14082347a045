"""How a client of pymilvus is opened, and which of its errors are a wrong setting."""

import logging
import logging.config
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]  # comes with pymilvus

from sage_connectors.tls import Tls
from sage_flink.common.connections import MilvusConnection
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.proxies import bypass_grpc_proxy


@contextmanager
def _logging_unchanged() -> Iterator[None]:
    """Ignore configuration of logging while the block runs.

    pymilvus 2.5 configures it when it is imported, and ``dictConfig`` closes all handlers: a Flink
    worker's, which carries its log to the TaskManager, wrote no line after that.
    """
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        yield
    finally:
        logging.config.dictConfig = configure


with _logging_unchanged():
    from pymilvus import DataType, MilvusClient, MilvusException, utility
    from pymilvus.exceptions import DataNotMatchException, ParamError

__all__ = [  # imported from here, where importing them changes no logging
    "DataNotMatchException",
    "DataType",
    "MilvusClient",
    "MilvusException",
    "ParamError",
    "check",
    "message_of",
    "open_client",
    "refused_setting",
    "server_version",
]
#: Whole seconds: pymilvus 2.5 ignores a timeout that is not an int, and tries for minutes.
CONNECT_TIMEOUT_S = 5
T = TypeVar("T")
#: Milvus's codes: not authenticated, no such database.
UNAUTHENTICATED, NO_DATABASE = frozenset({1800, 65}), 800


def open_client(server: MilvusConnection, place: str = "") -> Any:
    """A client of the server, logged in, in its database; ``place`` goes on with it in errors.

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
    return str(utility.get_server_version(using=client._using))


def refused_setting(server: MilvusConnection, error: Exception) -> str:
    """The field of the connection that the server does not accept; empty for any other error."""
    code: Any = getattr(error, "code", None)  # a method where the error came from grpc
    code = code() if callable(code) else code
    text = message_of(error).lower()
    if code == grpc.StatusCode.UNAUTHENTICATED or code in UNAUTHENTICATED or "auth check" in text:
        return "token" if server.token else "user, password" if server.user else "token or user"
    if code == NO_DATABASE or "database not found" in text:
        return "database"
    return ""


def message_of(error: Exception) -> str:
    """The server's own words, in one line."""
    details = error.details() if isinstance(error, grpc.RpcError) else ""
    text = str(details or getattr(error, "message", "") or error)
    return text.rpartition("0 retry times, message=")[2][:300]
