"""Remote engines as they are: line ends, no [DONE], compressed answers, other base paths."""

import contextlib
import gzip
import itertools
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_server import loopback_server

from sage_gateway.forwarding.remote_events import RemoteEvents

MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
WHOLE = {"id": "1", "choices": [MESSAGE], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
DONE = b"data: [DONE]"
STREAM = FIRST + b"\n\n" + LAST + b"\n\n" + DONE + b"\n\n"

#: Streams of servers, and the same as the gateway passes it on.
STREAMS = {
    "LF": STREAM,
    "CRLF": STREAM.replace(b"\n", b"\r\n"),
    "CR": STREAM.replace(b"\n", b"\r"),
    "one line end at the end": STREAM[:-1],
    "no line end at the end": STREAM[:-2],
    "no [DONE]": STREAM[: -len(DONE) - 2],
    "no [DONE] and no line end": STREAM[: -len(DONE) - 4],
    "CRLF, no [DONE]": (FIRST + b"\n\n" + LAST + b"\n\n").replace(b"\n", b"\r\n"),
}


class Chunks:
    """A body in chunks."""

    def __init__(self, body: bytes, cuts: list[int]) -> None:
        places = sorted({cut % (len(body) + 1) for cut in cuts} | {0, len(body)})
        self._chunks = [body[a:b] for a, b in itertools.pairwise(places)]

    async def readany(self) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


async def read_all(body: bytes, cuts: list[int]) -> bytes:
    events = RemoteEvents(Chunks(body, cuts))
    chunks = []
    while chunk := await events.readany():
        chunks.append(chunk)
    return b"".join(chunks)


@given(st.sampled_from(list(STREAMS.values())), st.lists(st.integers(0, 1 << 16), max_size=8))
async def test_a_finished_stream_reads_the_same_wherever_it_is_cut(
    body: bytes, cuts: list[int]
) -> None:
    assert await read_all(body, cuts) == STREAM


@given(st.lists(st.integers(0, 1 << 16), max_size=8))
async def test_a_stream_without_a_finish_reason_gets_no_done(cuts: list[int]) -> None:
    assert await read_all(FIRST + b"\n\n", cuts) == FIRST + b"\n\n"


class Remote(BaseHTTPRequestHandler):
    """An engine below ``base`` without a list of models; ``stream`` is what it streams."""

    protocol_version = "HTTP/1.0"
    base = "/v1"
    stream = STREAM
    compress = False

    def do_GET(self) -> None:
        self.answer(404, "application/json", b"{}")

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != self.base + "/chat/completions":
            return self.answer(404, "application/json", b'{"error": {"message": "no route"}}')
        if body.get("stream"):
            return self.answer(200, "text/event-stream", self.stream)
        return self.answer(200, "application/json", orjson.dumps(WHOLE))

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        if self.compress:
            self.send_header("content-encoding", "gzip")
            body = gzip.compress(body)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def remote_engine(**attributes: Any) -> Iterator[int]:
    """The port of a :class:`Remote` with these attributes."""
    handler = type("Handler", (Remote,), attributes)
    with loopback_server(handler) as port:
        yield port


@contextlib.contextmanager
def gateway_of(start: Any, port: int, path: str) -> Iterator[Any]:
    source = f"http://127.0.0.1:{port}{path}"
    model = {"engine": "remote", "kind": "chat", "source": source, "remote_model": "theirs"}
    with start({"talk": model}, pool={"engine_hosts": ["127.0.0.1"]}) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("source", "base"),
    [
        ("", "/v1"),
        ("/v1/", "/v1"),
        ("/v1beta/openai", "/v1beta/openai"),
        ("/api/paas/v4/", "/api/paas/v4"),
    ],
)
def test_the_base_path_of_a_remote_engine_is_the_one_in_the_pool_file(
    start: Any, source: str, base: str
) -> None:
    with remote_engine(base=base) as port, gateway_of(start, port, source) as gateway:
        assert gateway.chat("hi").json()["choices"] == WHOLE["choices"]


def test_compressed_answers_of_a_remote_engine_are_read(start: Any) -> None:
    with remote_engine(compress=True) as port, gateway_of(start, port, "/v1") as gateway:
        assert gateway.chat("hi").json()["choices"] == WHOLE["choices"]
        assert gateway.chat("hi", stream=True).content == STREAM


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_stream_of_a_remote_engine_is_passed_on_whole_and_billed(
    start: Any, stream: bytes
) -> None:
    with remote_engine(stream=stream) as port, gateway_of(start, port, "/v1") as gateway:
        answers = [gateway.chat("hi", stream=True).content for _ in range(6)]
        usage = gateway.client.get("/v1/usage").text

        assert answers == [STREAM] * 6
        assert '"requests":6' in usage.replace(" ", "")
        assert not gateway.pool.models["talk"].replica_slots[0].suspect
