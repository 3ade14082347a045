"""A question to the gateway, with the key of this machine."""

from typing import Any

import httpx

from sage_flink.common import ConfigError, OperatorNeeded, Settings
from sage_flink.common.openai import error_message

TIMEOUT_S = 30.0


def asked(method: str, path: str, **more: Any) -> Any:
    """The gateway's answer.

    Raises:
        OperatorNeeded: there is no gateway.
        ConfigError: it refused; with its words.
    """
    settings = Settings.load()
    url = settings.gateway_urls[0]
    headers = {"Authorization": f"Bearer {settings.secret('gateway')}"}
    try:
        answer = httpx.request(method, url + path, headers=headers, timeout=TIMEOUT_S, **more)
    except httpx.TransportError as error:
        raise OperatorNeeded(f"no gateway at {url} ({error}); run `sage up`") from error
    if answer.is_error:
        raise ConfigError(f"{url}: {error_message(answer.content, answer.status_code)}")
    return answer.json()
