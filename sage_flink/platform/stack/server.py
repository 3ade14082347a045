"""Description of one supervised server; each server's own module builds it."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PROBE_TIMEOUT_S = 2.0


def no_op() -> None:
    """The default of a step that a server does not need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server of the local stack: its command, ports, address and readiness probe.

    ``prepare`` writes configuration and formats storage; it runs before the process, may be
    repeated, and raises StackError when a file that setup creates is missing. ``ready`` returns
    whether the server accepts work now and never raises. ``after_ready`` runs once the server is
    ready. ``secured``: whether it demands TLS and a secret.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    ports: tuple[str, ...]
    url: str
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = no_op
    after_ready: Callable[[], None] = no_op
    ready_s: float = 120.0
    stop_s: int = 10
    secured: bool = False


def trusting(authority: Path | None) -> ssl.SSLContext:
    """The client side of TLS that trusts ``authority`` only; without one, no server.

    httpx would load the machine's authorities for each client, also for plain HTTP.

    Raises:
        OSError: the file does not exist, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority is not None:
        context.load_verify_locations(authority)
    return context


def responds(
    url: str, accept: Callable[[httpx.Response], bool], authority: Path | None = None
) -> bool:
    """Whether a GET of ``url`` succeeds in time and ``accept`` returns True; uses no proxy.

    ``authority``: the certificate that an https server's must be signed with.
    """
    try:
        context = trusting(authority)
        with httpx.Client(verify=context, timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            return accept(client.get(url))
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError):
        return False  # the server is not up yet, or another one listens there
