"""The last check before a replica is ready: one request of one token, answered as OpenAI does."""

import math
from typing import Any

import aiohttp
import orjson

from sage_gateway.models.model import Member

#: A remote engine that says so is there: it has its own rules for a request, or no room now.
REFUSALS = frozenset({400, 422, 429})
HEADERS = {"content-type": "application/json", "x-sage-probe": "1"}


async def fault(member: Member, model: str, session: aiohttp.ClientSession) -> str:
    """Why the replica does not serve, empty when it does; ``model`` is its name there."""
    spec = member.launch.spec
    path, body = _request(spec.kind, model)
    limit = aiohttp.ClientTimeout(total=spec.health.start_timeout_s)
    try:
        async with session.post(
            member.url(path),
            data=orjson.dumps(body),
            headers={**HEADERS, **member.headers},
            timeout=limit,
            allow_redirects=False,
        ) as answer:
            found = await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"a request of one token got no answer ({type(error).__name__})"
    if member.launch.target is not None and answer.status in REFUSALS:
        return ""
    if answer.status != 200:
        return f"a request of one token got status {answer.status}"
    return wrong(spec.kind, found, spec.dim)


def wrong(kind: str, body: bytes, dim: int | None) -> str:
    """What is wrong with an answer; empty when nothing is."""
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
