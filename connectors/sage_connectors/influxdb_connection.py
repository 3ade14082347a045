"""How a client of InfluxDB is opened, and which of its errors are a wrong setting."""

from collections.abc import Callable
from typing import TypeVar

import urllib3
from influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException

from sage_connectors.tls import Tls
from sage_flink.common.connections import InfluxdbConnection
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.settings import Settings

TIMEOUT_MS = 20_000
T = TypeVar("T")


def open_client(
    server: InfluxdbConnection, org: str, timeout_ms: int = TIMEOUT_MS
) -> InfluxDBClient:
    """A client, with the connection's token, or the settings' key for the settings' server.

    Raises:
        ConfigError: there is no token where it should be, or TLS is refused; it names the setting.
    """
    settings = Settings.load()
    token = server.secret("token") or (settings.secret("influxdb") if _is_own(server) else None)
    Tls(server.where, server.ca).check(server.url)
    return InfluxDBClient(
        server.url, token, org=org, timeout=timeout_ms, ssl_ca_cert=server.ca or None
    )


def check(server: InfluxdbConnection, org: str, ask: Callable[[], T]) -> T:
    """What ``ask`` returns.

    Raises:
        ConfigError: the server refuses a setting of the connection; the message names it.
        StoreUnavailable: the server does not answer.
    """
    try:
        return ask()
    except (ApiException, urllib3.exceptions.HTTPError) as error:
        raise meaning_of(server, org, "", error) from error


def meaning_of(
    server: InfluxdbConnection, org: str, bucket: str, error: Exception
) -> ConfigError | StoreUnavailable:
    """The error of a client as sage's own; ``bucket`` is part of its place."""
    name = f", connection {server.name!r}" if server.name else ""
    where = f"InfluxDB at {server.url}, org {org!r}{bucket}{name}"
    status = getattr(error, "status", 0)
    if status in {401, 403}:
        return ConfigError(f"{where}: {_unauthorized_message(server)}")
    if status == 404:
        return ConfigError(f"{where}: not found: {message_of(error)}; check org and bucket")
    return StoreUnavailable(f"{where}: {message_of(error)}; `sage ps` shows its state")


def _is_own(server: InfluxdbConnection) -> bool:
    return server.url.rstrip("/") == Settings.load().influxdb_url.rstrip("/")


def _unauthorized_message(server: InfluxdbConnection) -> str:
    if server.token:
        return f"token: the one in {server.token} is not accepted"
    if _is_own(server):
        return "the key is not accepted; set SAGE_INFLUXDB_KEY"
    return (
        "it wants a key, and the one there is belongs to another server; make a connection with "
        "its url and token, or set SAGE_INFLUXDB_URL to this one and SAGE_INFLUXDB_KEY to its key"
    )


def message_of(error: Exception) -> str:
    """The server's message, or why it was not reached; one line, never its HTTP headers."""
    match error:
        case ApiException():
            text = error.message
            text = text.decode(errors="replace") if isinstance(text, bytes) else str(text or "")
            text = text or f"HTTP {error.status} {error.reason}"
        case urllib3.exceptions.MaxRetryError(reason=Exception() as reason):
            text = str(reason)
        case _:
            text = str(error)
    return " ".join(text.split())[:300]
