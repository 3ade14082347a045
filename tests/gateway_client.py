"""OpenAI's own client of a gateway, and the keys of its tenants."""

from typing import Any

import openai

KEY = "sk-sage-test"


def client_of(url: str, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def create_key(gateway: Any, tenant: str, **limits: int) -> str:
    """A new key of the tenant, for inference."""
    wanted = {"tenant": tenant, "scopes": ["infer"], "limits": limits}
    key: str = gateway.client.post("/pool/keys", json=wanted).json()["key"]
    return key
