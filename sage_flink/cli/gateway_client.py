"""Client of the gateway's admin API, with this machine's key."""

from typing import Any

import httpx

from sage_flink.common import ConfigError, OperatorNeeded, Settings
from sage_flink.common.connections import GatewayConnection
from sage_flink.common.connections_file import connection_to
from sage_flink.common.openai import error_message
from sage_flink.common.proxies import is_loopback

TIMEOUT_S = 30.0


def call_gateway(method: str, path: str, **options: Any) -> Any:
    """The gateway's response, decoded from JSON.

    Raises:
        OperatorNeeded: no gateway answers.
        ConfigError: the gateway refused the request; the message holds its own.
    """
    from sage_connectors.http import pool_key, pool_tls  # aiohttp loads for half a second

    pool = connection_to("", GatewayConnection)
    url = Settings.load().gateway_urls[0]
    headers = {"Authorization": f"Bearer {pool_key(pool)}"}
    options |= {"headers": headers, "timeout": TIMEOUT_S, "trust_env": not is_loopback(url)}
    options["verify"] = pool_tls(pool) or True
    try:
        response = httpx.request(method, url + path, **options)
    except httpx.TransportError as error:
        raise OperatorNeeded(f"no gateway at {url} ({error}); run `sage up`") from error
    if response.is_error:
        raise ConfigError(f"{url}: {error_message(response.content, response.status_code)}")
    return response.json()
