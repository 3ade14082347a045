"""Usage in streams: only clients that ask for it see it, in an event without choices."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import orjson
import pytest

from sage_flink.common.settings import sage_cache
from sage_gateway.openai.decoding import decode
from sage_gateway.openai.schema import CompletionRequest
from sage_gateway.openai.stream_usage import place_usage
from sage_gateway.requests.response import DONE, StreamFacts, StreamingResponse

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
PROMPTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    COMPLETION: {"prompt": "Hello"},
}
UNASKED: list[dict[str, Any]] = [
    {},
    {"stream_options": None},
    {"stream_options": {}},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {"include_usage": False, "continuous_usage_stats": True}},
]
ASKED = {"stream_options": {"include_usage": True}}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2}


@pytest.fixture(scope="module")
def gateway(start: Any) -> Iterator[Any]:
    source = str(sage_cache() / "models" / "smollm2-135m-instruct.gguf")
    model = {"engine": "llamacpp", "kind": "chat", "source": source, "slots": 4, "threads": 1}
    health = {"start_timeout_s": 120, "timeout_s": 20}
    with start({"talk": {**model, "health": health}}, wait=False) as gateway:
        gateway.until(gateway.healthy, 120)
        gateway.client.timeout = 120
        yield gateway


def payload(**fields: Any) -> CompletionRequest:
    body = {"model": "m", "prompt": "a", "stream": True, **fields}
    return decode(orjson.dumps(body), CompletionRequest)


def event(**page: Any) -> bytes:
    return b"data: " + orjson.dumps(page) + b"\n\n"


def pages(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data:").strip() for line in body.split(b"\n") if line]
    return [orjson.loads(line) for line in lines if line != b"[DONE]"]


TEXT = event(choices=[{"text": '"usage": {"a'}], usage=None)
LAST = event(id="x", choices=[{"text": "", "finish_reason": "stop"}], usage=USAGE)
ALONE = event(id="x", choices=[], usage=USAGE)
ERROR = event(error={"message": "x", "usage": {"a": 1}})


@pytest.mark.parametrize("fields", UNASKED)
def test_usage_that_the_client_does_not_ask_for_is_left_out(fields: dict[str, Any]) -> None:
    found = place_usage(payload(**fields), TEXT + LAST + ALONE + ERROR + DONE)

    last = event(id="x", choices=[{"text": "", "finish_reason": "stop"}])
    assert found == TEXT + last + ERROR + DONE
    assert place_usage(payload(**fields), ALONE) == b""


def test_usage_that_the_client_asks_for_has_an_event_without_choices() -> None:
    found = place_usage(payload(**ASKED), TEXT + LAST + DONE)

    last = event(id="x", choices=[{"text": "", "finish_reason": "stop"}])
    assert found == TEXT + last + ALONE + DONE
    assert place_usage(payload(**ASKED), TEXT + ALONE + DONE) == TEXT + ALONE + DONE


def test_usage_in_every_event_is_left_there_where_it_is_asked_for() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    assert place_usage(payload(stream_options=options), LAST + ALONE) == LAST + ALONE


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class Charge:
    """Observer that keeps the tokens."""

    used: dict[str, int]

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        self.used, self.last = dict(facts.used), chunk

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        """The charge is made before."""


@pytest.mark.parametrize("chunks", [(TEXT, ALONE, DONE), (TEXT, ALONE + DONE)])
async def test_usage_is_charged_that_the_client_does_not_see(chunks: tuple[bytes, ...]) -> None:
    async def close() -> None:
        """There is no source."""

    stream, charge = StreamingResponse(chunks_of(*chunks), close), Charge()
    stream.observe(charge)
    request = payload()
    stream.convert_chunks(lambda chunk: place_usage(request, chunk))

    found = [chunk async for chunk in stream]

    assert found == [TEXT, DONE]  # an empty chunk would end an HTTP body
    assert (charge.used, charge.last) == ({"in": 1, "out": 2}, DONE)


def streamed(gateway: Any, path: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "talk", "stream": True, "max_tokens": 3, **PROMPTS[path], **fields}
    answer: httpx.Response = gateway.client.post(path, json=body)
    assert answer.text.endswith("data: [DONE]\n\n")
    return pages(answer.content)


@pytest.mark.parametrize("fields", UNASKED)
@pytest.mark.parametrize("path", PROMPTS)
def test_no_event_of_llama_cpp_has_a_usage_that_was_not_asked_for(
    gateway: Any, path: str, fields: dict[str, Any]
) -> None:
    found = streamed(gateway, path, **fields)

    assert all(page["choices"] for page in found)
    assert not [page for page in found if "usage" in page]


@pytest.mark.parametrize("path", PROMPTS)
def test_the_last_event_of_llama_cpp_has_the_usage_that_was_asked_for(
    gateway: Any, path: str
) -> None:
    *earlier, last = streamed(gateway, path, **ASKED)

    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert not [page for page in earlier if page.get("usage")]


def test_a_stream_with_an_id_is_replayed_as_it_was(gateway: Any) -> None:
    body = {"model": "talk", "stream": True, "max_tokens": 3, **PROMPTS[COMPLETION]}
    headers = {"idempotency-key": "usage"}
    first, second = (gateway.client.post(COMPLETION, json=body, headers=headers) for _ in "12")

    assert second.headers["x-sage-ledger"] == "hit"
    assert (first.text, "usage" in first.text) == (second.text, False)
