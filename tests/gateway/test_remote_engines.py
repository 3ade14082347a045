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
from typing_extensions import override

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


class RemoteLlamaCpp(Remote):
    """As llama.cpp: each choice has one token more than the one before.

    The usage of a whole answer is that of the first choice; a stream has that of each.
    """

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        places = range(body.get("n") or 1)
        if not body.get("stream"):
            page = {"choices": [{**MESSAGE, "index": place} for place in places]}
            return self.answer(200, "application/json", orjson.dumps({**page, **counts(0)}))
        assert body["stream_options"] == {"include_usage": True}
        events = [event for place in places for event in choice_events(place)]
        lines = b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events)
        return self.answer(200, "text/event-stream", lines + DONE + b"\n\n")


def counts(place: int) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": place + 2}
    return {"usage": usage, "timings": {"prompt_n": 3, "predicted_n": place + 2}}


def choice_events(place: int) -> Iterator[dict[str, Any]]:
    text = {"index": place, "delta": {"content": "hi "}, "finish_reason": None}
    yield from [{"choices": [text]}] * (place + 2)
    yield {"choices": [{"index": place, "delta": {}, "finish_reason": "stop"}]}
    yield {"choices": [], **counts(place)}


@contextlib.contextmanager
def remote_engine(kind: type[Remote] = Remote, **attributes: Any) -> Iterator[int]:
    """The port of a :class:`Remote` with these attributes."""
    handler = type("Handler", (kind,), attributes)
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


def charge(gateway: Any, **fields: Any) -> tuple[Any, tuple[int, int]]:
    """The answer to a chat, and what its key is charged: prompt and completion tokens."""
    key = gateway.client.post("/pool/keys", json={"tenant": "acme"}).json()
    body = {"model": "talk", "messages": [{"role": "user", "content": "hi"}], **fields}
    headers = {"authorization": f"Bearer {key['key']}"}
    page = gateway.client.post("/v1/chat/completions", json=body, headers=headers).json()
    lines = gateway.client.get("/v1/usage").json()["data"]
    [line] = [one for one in lines if one["key"] == key["id"]]
    return page, (line["prompt_tokens"], line["completion_tokens"])


def test_all_choices_of_a_remote_llamacpp_are_charged(start: Any) -> None:
    with remote_engine(RemoteLlamaCpp) as port, gateway_of(start, port, "/v1") as gateway:
        one, charged_one = charge(gateway)
        four, charged_four = charge(gateway, n=4)

    assert (charged_one, charged_four) == ((3, 2), (3, 2 + 3 + 4 + 5))
    assert one["usage"]["completion_tokens"] == 2
    assert four["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 14,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert [choice["message"]["content"] for choice in four["choices"]] == [
        "hi " * tokens for tokens in (2, 3, 4, 5)
    ]


def test_a_remote_llamacpp_that_refused_the_probe_is_recognized_by_its_first_answer(
    start: Any,
) -> None:
    class Busy(RemoteLlamaCpp):
        @override
        def do_POST(self) -> None:
            if "x-sage-probe" not in self.headers:
                return super().do_POST()
            return self.answer(429, "application/json", b'{"error": {"message": "later"}}')

    with remote_engine(Busy) as port, gateway_of(start, port, "/v1") as gateway:
        charge(gateway)

        assert charge(gateway, n=2)[1] == (3, 5)


def test_the_usage_of_another_remote_engine_is_charged_as_it_reports_it(start: Any) -> None:
    with remote_engine() as port, gateway_of(start, port, "/v1") as gateway:
        page, charged = charge(gateway, n=2)

    assert (page, charged) == (WHOLE, (3, 2))
