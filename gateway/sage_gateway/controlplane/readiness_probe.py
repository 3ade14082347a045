"""The health check, and the probe: one request of one token, answered in OpenAI's schema.

The probe is the last check before a replica is READY, and the one before its errors open a circuit.
"""

import math
from typing import Any

import aiohttp
import orjson

from sage_gateway.models.replica_slot import ReplicaSlot

#: A remote engine with such an answer is available: it limits requests, or has no room now.
REFUSALS = frozenset({400, 422, 429})
#: A remote engine with such an answer is available, but does not list its models.
MISSING = frozenset({404, 405})
HEADERS = {"content-type": "application/json", "x-sage-probe": "1"}


async def is_healthy(slot: ReplicaSlot, path: str, session: aiohttp.ClientSession) -> bool:
    """Whether a GET of ``path`` is answered with 200; a remote engine may not have that route."""
    limit = aiohttp.ClientTimeout(total=slot.launch.spec.health.timeout_s)
    request = session.get(
        slot.url(path), timeout=limit, headers=slot.headers, allow_redirects=False
    )
    try:
        async with request as response:
            missing = slot.launch.target is not None and response.status in MISSING
            return response.status == 200 or missing
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def probe(slot: ReplicaSlot, model: str, session: aiohttp.ClientSession) -> str:
    """Why the replica does not serve, empty if it does; ``model`` is its name at the engine."""
    spec = slot.launch.spec
    path, body = _request(spec.kind, model)
    limit = aiohttp.ClientTimeout(total=spec.health.start_timeout_s)
    try:
        async with session.post(
            slot.url(path),
            data=orjson.dumps(body),
            headers={**HEADERS, **slot.headers},
            timeout=limit,
            allow_redirects=False,
        ) as response:
            content = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"a request of one token got no answer ({type(error).__name__})"
    if slot.launch.target is not None and response.status in REFUSALS:
        return ""
    if response.status != 200:
        return f"a request of one token got status {response.status}"
    if spec.kind == "chat":
        slot.learn_from(content)
    return response_error(spec.kind, content, spec.dim)


def response_error(kind: str, body: bytes, dim: int | None) -> str:
    """What is wrong with a response body; empty if it is valid."""
    try:
        page = orjson.loads(body)
        if kind == "chat":
            return "" if page["choices"] else "a chat was answered without choices"
        if kind == "rerank":
            return "" if page["results"] else "documents were ranked without results"
        vector = page["data"][0]["embedding"]
        if not all(math.isfinite(x) for x in vector):
            return "a vector with numbers that are not finite"
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return f"a request of one token was not answered in OpenAI's shape, but {body[:80]!r}"
    if dim is not None and len(vector) != dim:
        return f"its vectors have {len(vector)} numbers, and dim is {dim}"
    return ""


def _request(kind: str, model: str) -> tuple[str, dict[str, Any]]:
    if kind == "embedding":
        return "/v1/embeddings", {"model": model, "input": ["hi"], "encoding_format": "float"}
    if kind == "rerank":
        return "/v1/rerank", {"model": model, "query": "hi", "documents": ["hi"]}
    messages = [{"role": "user", "content": "hi"}]
    return "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 1}
