"""Requests to a schema registry as its connection says, and which errors are a wrong setting.

A registry is asked once per schema, so each request opens a connection of its own, with the secrets
and certificates as they are then: those that are renewed while a job runs are used.
"""

import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx

from sage_connectors.tls import Tls
from sage_flink.common.connections import SchemaRegistryConnection
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.http_clients import httpx_options

TIMEOUT_S = 10.0
_CONTENT = "application/vnd.schemaregistry.v1+json"
#: What nginx answers, with status 400, where a client has no certificate or a wrong one.
_CERTIFICATE_REFUSED = "SSL certificate"


def request(
    server: SchemaRegistryConnection, method: str, path: str, body: Any = None
) -> httpx.Response:
    """The registry's reply; its status may be that of an error.

    Raises:
        ConfigError: a secret or a file is missing here, or TLS or the login is refused; the message
            names the setting.
        StoreUnavailable: the registry does not answer.
    """
    headers = {"accept": _CONTENT, **({"content-type": _CONTENT} if body else {})}
    tls = _tls(server)
    trusted = tls.context() if server.ca or server.certificate else None
    try:
        reply = httpx.request(
            method,
            f"{server.url.rstrip('/')}{path}",
            json=body,
            headers={**headers, **_authorization(server)},
            auth=(server.username, server.secret("password")) if server.username else None,
            timeout=TIMEOUT_S,
            **httpx_options(server.url, trusted),
        )
    except httpx.HTTPError as error:
        _require_tls(tls, server.url, error)
        raise StoreUnavailable(f"{server.where}: url: {type(error).__name__}: {error}") from error
    if reply.status_code == 401:
        raise ConfigError(f"{server.where}: {_login_refusal(server)}")
    if reply.status_code == 400 and _CERTIFICATE_REFUSED in reply.text:
        raise ConfigError(f"{server.where}: certificate: {' '.join(reply.text.split())[:200]}")
    return reply


def _tls(server: SchemaRegistryConnection) -> Tls:
    password = server.secret("key_password")
    return Tls(server.where, server.ca, server.certificate, server.key, password)


def _authorization(server: SchemaRegistryConnection) -> dict[str, str]:
    """The header for the token.

    Raises:
        ConfigError: it is none for a header; h11 and httpx would show it in their errors.
    """
    token = server.secret("token")
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{server.where}: token: {server.token} holds no printable ASCII")
    return {"authorization": f"Bearer {token}"} if token else {}


def _require_tls(tls: Tls, url: str, error: httpx.HTTPError) -> None:
    """Check that the reason of a failed request is not TLS.

    Raises:
        ConfigError: it is; the message names the setting.
    """
    if isinstance(error, httpx.ConnectError):
        tls.check(url)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__  # httpcore raises some `from None`
    if cause is not None and "ALERT" in (cause.reason or ""):
        # TLS 1.3: the client is refused after its side of the handshake.
        parts = urlsplit(url)
        raise ConfigError(tls.refusal_of(parts.hostname or "", parts.port or 443, cause)) from error


def _login_refusal(server: SchemaRegistryConnection) -> str:
    if server.token:
        return f"token: the one in {server.token} is not accepted"
    if server.username:
        return f"username, password: not accepted; the password is the one in {server.password}"
    return "it wants a login; make a connection with username and password, or token"
