"""What one supervised server is: a value, made by its own file from the home and the ports."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PROBE_TIMEOUT_S = 2.0
# Probes are plain HTTP; httpx would read the certificates of the machine for each client.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def nothing() -> None:
    """No preparation needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One server of the local stack.

    ``prepare`` writes configuration and formats storage; it runs before the process, may be
    repeated, and raises StackError when something that setup makes is missing. ``ready`` answers
    whether the server takes work now and never raises. ``settle`` runs once after it is ready.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    ports: tuple[str, ...]
    url: str
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = nothing
    settle: Callable[[], None] = nothing
    ready_s: float = 60.0
    stop_s: int = 10


def answers(url: str, accept: Callable[[httpx.Response], bool]) -> bool:
    """Whether a GET of ``url`` comes back in time and ``accept`` likes it; no proxy is asked."""
    try:
        with httpx.Client(verify=NO_TLS, timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            return accept(client.get(url))
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False  # not up yet, or not this server
