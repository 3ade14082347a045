"""Client of the gateway's admin API, with this machine's key."""

from typing import Any

import httpx

from sage_flink.common import ConfigError, OperatorNeeded, Settings
from sage_flink.common.connections import GatewayConnection
from sage_flink.common.connections_file import connection_to
from sage_flink.common.http_clients import httpx_options
from sage_flink.common.openai import error_message

TIMEOUT_S = 30.0


class GatewayResponseError(ConfigError):
    """The gateway answered with an error; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def call_gateway(method: str, path: str, **options: Any) -> Any:
    """The gateway's response, decoded from JSON.

    Raises:
        OperatorNeeded: no gateway answers.
        GatewayResponseError: the gateway refused the request; the message holds its own.
    """
    from sage_connectors.http import pool_key, pool_tls  # aiohttp loads for half a second

    pool = connection_to("", GatewayConnection)
    url = Settings.load().gateway_urls[0]
    headers = {"Authorization": f"Bearer {pool_key(pool)}"}
    options |= {"headers": headers, "timeout": TIMEOUT_S, **httpx_options(url, pool_tls(pool))}
    try:
        response = httpx.request(method, url + path, **options)
    except httpx.TransportError as error:
        raise OperatorNeeded(f"no gateway at {url} ({error}); run `sage up`") from error
    if response.is_error:
        message = error_message(response.content, response.status_code)
        raise GatewayResponseError(f"{url}: {message}", response.status_code)
    return response.json()
