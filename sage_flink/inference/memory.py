"""The reference pool: OpenAI's HTTP API without a model, deterministic, in this process.

Vectors are hashes of words, so texts that share words are similar; a chat answer repeats the
last message. It passes the same conformance suite as the real pool.
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
from sage_flink.flow.call_ports import Reply

DIM = 64


@dataclass(frozen=True, slots=True)
class EchoPool:
    """Replies to the requests of all specs; ``passages`` are the results of every search."""

    passages: tuple[str, ...] = ()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The answer to one request."""
        try:
            fields = json.loads(body)
            reply = self._reply(path, fields)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
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

    def _reply(self, path: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        if path == "/v1/embeddings":
            return _embeddings(fields)
        if path == "/v1/chat/completions":
            text = f"{fields['messages'][-1]['content']}"
            message = {"role": "assistant", "content": text}
            count = len(text.split())
            return {
                "object": "chat.completion",
                "model": fields["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": count, "completion_tokens": count},
            }
        if path == "/v1/completions":
            return _completion(fields)
        if path == "/v1/rerank":
            return _ranking(fields)
        if path.endswith("/search"):
            return {"data": [_hit(text, fields["query"]) for text in self.passages]}
        return None


def _completion(fields: Mapping[str, Any]) -> dict[str, Any]:
    text = f"{fields['prompt']}"
    count = len(text.split())
    return {
        "object": "text_completion",
        "model": fields["model"],
        "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": count, "completion_tokens": count},
    }


def _ranking(fields: Mapping[str, Any]) -> dict[str, Any]:
    query = _vector(fields["query"])
    scores = [
        sum(a * b for a, b in zip(_vector(text), query, strict=True))
        for text in fields["documents"]
    ]
    best = sorted(range(len(scores)), key=lambda index: -scores[index])
    results = [{"index": index, "relevance_score": scores[index]} for index in best]
    return {"model": fields["model"], "results": results[: fields.get("top_n")]}


def _embeddings(fields: Mapping[str, Any]) -> dict[str, Any]:
    content = fields["input"]
    texts = [content] if isinstance(content, str) else content
    if not texts:
        raise ValueError("input is empty")
    vectors = [_vector(text) for text in texts]
    binary = fields.get("encoding_format") == "base64"
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(v.tobytes()).decode() if binary else list(v),
        }
        for index, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": sum(len(t.split()) for t in texts)}
    return {"object": "list", "model": fields["model"], "data": rows, "usage": usage}


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
