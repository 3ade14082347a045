"""Egress control for remote engines: allowed hosts, at addresses that were checked.

The allowed hosts are ``engine_hosts`` of ``pool.yaml``: names, addresses and networks. A source's
host must be listed as it is written. A name is resolved once, when a replica is started, and
connections are opened to those addresses only, so that a name cannot change its address between
check and use. An address that is not public (loopback, private, link-local with its metadata
service, ...) must be listed too, as an address or in a network, even if a listed name resolves to
it. An address inside of an address (IPv4 in IPv6, 6to4, Teredo, NAT64) counts as both.

Callers of this module do not follow redirects. URLs are parsed by the library that connects to
them, so that there are no two interpretations.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from sage_connectors.tls import Tls
from sage_flink.common import ConfigError

Address = IPv4Address | IPv6Address

VERSION = "/v1"
#: Checked before parsing: no control characters, blanks, backslashes or characters to be folded.
_PLAIN = re.compile(r"[!-\[\]-~]+")
_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)
_NAT64 = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")


@dataclass(frozen=True, slots=True)
class Target:
    """A checked base URL, such as ``https://HOST/v1``; ``listed``: the allowed hosts."""

    url: URL
    listed: tuple[str, ...]
    key_env: str = ""
    tls: ssl.SSLContext | None = field(default=None, compare=False)

    def address(self, path: str) -> str:
        """The URL of ``path``, which begins with ``/v1``, as the base URL has it."""
        return str(self.url).rstrip("/") + path.removeprefix(VERSION)


def target(source: str, listed: Collection[str], key_env: str = "", ca: str = "") -> Target:
    """The target of ``source``, an OpenAI-compatible base URL, signed by an authority of ``ca``.

    Raises:
        ConfigError: it is not such a URL, its host is not among ``listed``, or ``ca`` is no file of
            authorities.
    """
    try:
        url = URL(source) if _PLAIN.fullmatch(source) else None
    except ValueError:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.raw_host:
        raise ConfigError(f"source must be a URL as https://HOST/v1, got {source!r:.80}")
    if url.user is not None or url.password is not None or url.raw_query_string or url.fragment:
        raise ConfigError("source must have no user, query or fragment; name the key in key_env")
    host = url.raw_host.lower()
    if not (_NAME.fullmatch(host) or _address(host)) or "%" in host:
        raise ConfigError(f"source has no plain host name or address, got {host!r:.80}")
    if not _is_listed(host, listed):
        known = ", ".join(listed) or "empty"
        raise ConfigError(f"host {host!r} is not in engine_hosts ({known}); add it to pool.yaml")
    base = url.with_path(url.path.rstrip("/") or VERSION)
    tls = Tls("engine remote", ca).context() if ca else None
    return Target(base, tuple(listed), key_env, tls)


async def resolve(to: Target) -> tuple[str, ...]:
    """The addresses to connect to.

    Raises:
        ConfigError: one of them is not public and not listed.
        OSError: the name cannot be resolved.
    """
    host = to.url.raw_host or ""
    if _address(host):
        return (host,)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, to.url.port, type=socket.SOCK_STREAM)
    addresses = tuple(dict.fromkeys(str(one[4][0]) for one in found))
    for address in addresses:
        if not is_permitted(address, to.listed):
            message = f"{host} is at {address}, which is not public; add that to engine_hosts"
            raise ConfigError(message)
    return addresses


def is_permitted(address: str, listed: Collection[str]) -> bool:
    """Whether ``address`` may be connected to: it and every inner address is public or listed."""
    outer = _address(address)
    if outer is None:
        return False
    return all(_public(one) or _within(one, listed) for one in (outer, *_inner(outer)))


def _is_listed(host: str, listed: Collection[str]) -> bool:
    """A name must be listed; so must an address, itself or in a network."""
    if host in {one.lower() for one in listed}:
        return True
    address = _address(host)
    return address is not None and not any(_inner(address)) and _within(address, listed)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _within(address: Address, listed: Collection[str]) -> bool:
    for one in listed:
        try:
            network = ip_network(one)
        except ValueError:
            continue  # a name
        if address.version == network.version and address in network:
            return True
    return False


def _inner(address: Address) -> Iterator[Address]:
    """The IPv4 addresses that an IPv6 address carries."""
    if isinstance(address, IPv4Address):
        return
    for found in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())):
        if found is not None:
            yield found
    if any(address in network for network in _NAT64) or 1 < int(address) < 1 << 32:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


class PinnedResolver(AbstractResolver):
    """Resolves one host to fixed addresses, and no other host."""

    def __init__(self, host: str, addresses: Collection[str]) -> None:
        self._host = host
        self._addresses = tuple(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of the host.

        Raises:
            OSError: it is another host.
        """
        if host.lower() != self._host.lower():
            raise OSError(f"{host} is not {self._host}")
        return [_result(host, address, port) for address in self._addresses]

    async def close(self) -> None:
        """There is no resource to release."""


def session(to: Target, addresses: Collection[str]) -> aiohttp.ClientSession:
    """A client that connects to ``addresses`` only."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=15,
            resolver=PinnedResolver(to.url.raw_host or "", addresses),
            ssl=True if to.tls is None else to.tls,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity"},
        trust_env=False,
    )


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=0, flags=flags
    )
