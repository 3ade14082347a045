"""The reference pool: the wire contract without a model, deterministic, in this process.

Vectors are hashes of words, so texts that share words are near; a chat answer repeats the last
message. Proven by the same conformance suite as the real pool.
"""

import base64
import json
import math
from array import array
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from sage_flink.common.errors import PoolError
from sage_flink.flow.ports import Reply

DIM = 64


@dataclass(frozen=True, slots=True)
class EchoPool:
    """Answers what the specs ask; ``passages`` is what every search finds."""

    passages: tuple[str, ...] = ()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The answer to one request."""
        try:
            asked = json.loads(body)
            reply = self._reply(path, asked)
        except (ValueError, KeyError, TypeError) as error:
            return Reply(400, _error(f"bad request: {error!r}", "invalid_request_error"))
        if reply is None:
            return Reply(404, _error(f"no such route: {path}", "not_found"))
        return Reply(200, json.dumps(reply).encode())

    async def stream(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """A chat answer, a word an event."""
        status, reply, _ = await self.post(path, body, headers)
        parsed = json.loads(reply)
        if status != 200:
            raise PoolError(parsed["error"]["message"], status=status)
        for word in parsed["choices"][0]["message"]["content"].split(" "):
            yield _event({"choices": [{"index": 0, "delta": {"content": word + " "}}]})
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield _event({**last, "usage": parsed["usage"]})
        yield b"data: [DONE]\n\n"

    def _reply(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        if path == "/v1/embeddings":
            return _embeddings(asked)
        if path == "/v1/chat/completions":
            text = f"{asked['messages'][-1]['content']}"
            message = {"role": "assistant", "content": text}
            count = len(text.split())
            return {
                "object": "chat.completion",
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": count, "completion_tokens": count},
            }
        if path == "/v1/completions":
            return _completion(asked)
        if path == "/v1/rerank":
            return _ranking(asked)
        if path.endswith("/search"):
            return {"data": [_hit(text, asked["query"]) for text in self.passages]}
        return None


def _completion(asked: Mapping[str, Any]) -> dict[str, Any]:
    text = f"{asked['prompt']}"
    count = len(text.split())
    return {
        "object": "text_completion",
        "model": asked["model"],
        "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": count, "completion_tokens": count},
    }


def _ranking(asked: Mapping[str, Any]) -> dict[str, Any]:
    query = _vector(asked["query"])
    scores = [
        sum(a * b for a, b in zip(_vector(text), query, strict=True)) for text in asked["documents"]
    ]
    best = sorted(range(len(scores)), key=lambda index: -scores[index])
    results = [{"index": index, "relevance_score": scores[index]} for index in best]
    return {"model": asked["model"], "results": results[: asked.get("top_n")]}


def _embeddings(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = asked["input"]
    texts = [given] if isinstance(given, str) else given
    if not texts:
        raise ValueError("input is empty")
    vectors = [_vector(text) for text in texts]
    binary = asked.get("encoding_format") == "base64"
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(v.tobytes()).decode() if binary else list(v),
        }
        for index, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": sum(len(t.split()) for t in texts)}
    return {"object": "list", "model": asked["model"], "data": rows, "usage": usage}


def _vector(text: str) -> "array[float]":
    sums = [0.0] * DIM
    for word in text.lower().split():
        digest = blake2b(word.encode(), digest_size=8).digest()
        sums[digest[0] % DIM] += 1.0 if digest[1] % 2 else -1.0
        sums[digest[2] % DIM] += 1.0
    norm = math.sqrt(sum(x * x for x in sums)) or 1.0
    return array("f", (x / norm for x in sums))


def _hit(text: str, query: str) -> dict[str, Any]:
    score = sum(a * b for a, b in zip(_vector(text), _vector(query), strict=True))
    content = [{"type": "text", "text": text}]
    return {"file_id": text[:20], "filename": text[:20], "score": score, "content": content}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _error(message: str, kind: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "code": None}}).encode()
