"""How httpx reaches a server: with a proxy only elsewhere, with authorities only over TLS."""

import ssl
from typing import Any
from urllib.parse import urlsplit

from sage_flink.common.proxies import is_loopback


def httpx_options(url: str, tls: ssl.SSLContext | None = None) -> dict[str, Any]:
    """The options of a client of ``url``, or of a request to it; ``tls``: what it trusts.

    Without them httpx reads the machine's authorities for each client and each single request, also
    for plain HTTP: that takes 30 to 50 ms.
    """
    if tls is None and urlsplit(url).scheme == "http":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no authority
    return {"verify": tls or True, "trust_env": not is_loopback(url)}
