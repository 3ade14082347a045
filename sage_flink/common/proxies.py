"""Proxies of the environment (``HTTP_PROXY``, ``ALL_PROXY``): never for this machine's own servers.

Most clients take them for every host that ``NO_PROXY`` does not list, loopback included. A stack on
this machine would then seem to be down on any machine with a proxy.
"""

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

#: gRPC reads it before ``no_proxy``, in this spelling only.
_EXCEPTIONS = "no_grpc_proxy"


def is_loopback(url: str) -> bool:
    """Whether ``url`` is an address of this machine.

    >>> is_loopback("http://127.0.0.1:8081"), is_loopback("http://[::1]/"), is_loopback("http://a.b")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def grpc_exceptions(host: str) -> dict[str, str]:
    """The environment in which gRPC takes no proxy for ``host`` of this machine either.

    PyFlink's workers and their JVM speak gRPC at ``localhost``: through a proxy no job would start.
    """
    before = os.environ.get(_EXCEPTIONS) or os.environ.get("no_proxy", "")
    hosts = [*filter(None, before.split(",")), host]
    return {_EXCEPTIONS: ",".join(dict.fromkeys(hosts))}


def bypass_grpc_proxy(url: str) -> None:
    """Keep gRPC, which takes its proxies from the environment only, from a loopback address."""
    if is_loopback(url):
        os.environ |= grpc_exceptions(urlsplit(url).hostname or "")
