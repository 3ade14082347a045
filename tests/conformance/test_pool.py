"""Conformance suite of the model pools."""

import base64
import json

import pytest

from sage_flink.common import PoolError
from sage_flink.flow.call_ports import Pool


def chat(said: str, stream: bool = False) -> bytes:
    messages = [{"role": "user", "content": said}]
    return json.dumps({"model": "echo", "messages": messages, "stream": stream}).encode()


async def test_each_text_gets_its_vector_in_order(pool: Pool) -> None:
    asked = {"model": "embed", "input": ["one", "two", "three"], "encoding_format": "base64"}

    status, body, _ = await pool.post("/v1/embeddings", json.dumps(asked).encode(), {})

    rows = json.loads(body)["data"]
    assert status == 200
    assert [row["index"] for row in rows] == [0, 1, 2]
    sizes = {len(base64.b64decode(row["embedding"])) for row in rows}
    assert len(sizes) == 1
    assert sizes.pop() % 4 == 0


async def test_equal_requests_have_equal_answers(pool: Pool) -> None:
    asked = json.dumps({"model": "embed", "input": ["text"], "encoding_format": "base64"}).encode()

    first, second = [json.loads((await pool.post("/v1/embeddings", asked, {}))[1]) for _ in "ab"]

    assert first["data"] == second["data"]


async def test_a_chat_is_answered_whole(pool: Pool) -> None:
    status, body, _ = await pool.post("/v1/chat/completions", chat("hello there"), {})

    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"]


async def test_a_streamed_chat_ends_with_done(pool: Pool) -> None:
    chunks = [c async for c in pool.stream("/v1/chat/completions", chat("a b c", True), {})]

    events = [e for e in b"".join(chunks).split(b"\n\n") if e]
    assert events[-1] == b"data: [DONE]"
    assert all(json.loads(e.removeprefix(b"data: "))["choices"] for e in events[:-1])


async def test_an_error_of_a_post_is_a_reply_with_its_status(pool: Pool) -> None:
    status, body, _ = await pool.post("/v1/nothing", b"{}", {})

    assert status == 404
    assert json.loads(body)["error"]["message"]


async def test_an_error_ends_a_stream_with_its_status(pool: Pool) -> None:
    with pytest.raises(PoolError) as caught:
        [c async for c in pool.stream("/v1/nothing", b"{}", {})]

    assert caught.value.status == 404
    assert str(caught.value)
