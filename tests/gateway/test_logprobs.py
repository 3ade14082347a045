"""Log probabilities in the forms that OpenAI's clients read, from the one form of llama.cpp."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from sage_flink.common.settings import sage_cache
from sage_gateway.engines import ENGINES
from sage_gateway.forwarding.logprob_events import LogprobEvents
from sage_gateway.openai.logprobs import LogprobForm

KEY = "sk-sage-test"
COMPLETION, CHAT = LogprobForm(True, 1), LogprobForm(False, 1)


class PieceReader:
    """A body that arrives in pieces of ``size`` bytes."""

    def __init__(self, body: bytes, size: int) -> None:
        self._pieces = [body[i : i + size] for i in range(0, len(body), size)]

    async def readany(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def logprob(token: str, value: float, *others: tuple[str, float]) -> dict[str, Any]:
    top = [{"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in others]
    return {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": top}


ONCE = logprob(" once", -0.5, (" once", -0.5), (" twice", -2.0))
UPON = logprob(" ü", -3.0, (" a", -0.25), (" the", -1.0))


async def converted(form: LogprobForm, body: bytes, size: int) -> bytes:
    events, found = LogprobEvents(PieceReader(body, size), form), b""
    while piece := await events.readany():
        assert piece.endswith(b"\n") or size == len(body)
        found += piece
    return found


def event(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def choices(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data")]
    return [json.loads(line)["choices"][0] for line in lines if b"choices" in line]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
async def test_a_completion_has_four_lists_with_offsets_in_its_own_text(size: int) -> None:
    body = event(index=0, text=" once", logprobs={"content": [ONCE]})
    body += event(index=1, text=" ü", logprobs={"content": [UPON]})
    body += event(index=0, text=" ü", logprobs={"content": [UPON]})
    body += event(index=0, text="", logprobs=None, finish_reason="length") + b"data: [DONE]\n\n"

    found = await converted(COMPLETION, body, size)

    first, other, second, last = (choice["logprobs"] for choice in choices(found))
    assert first == {
        "text_offset": [0],
        "token_logprobs": [-0.5],
        "tokens": [" once"],
        "top_logprobs": [{" once": -0.5}],
    }
    assert (other["text_offset"], second["text_offset"], last) == ([0], [5], None)
    assert second["top_logprobs"] == [{" a": -0.25, " ü": -3.0}]
    assert found.endswith(b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("alternatives", [0, 1, 2])
async def test_a_token_of_a_chat_has_the_alternatives_that_were_asked_for(
    alternatives: int,
) -> None:
    body = event(index=0, delta={"content": " once"}, logprobs={"content": [ONCE]})

    found = await converted(LogprobForm(False, alternatives), body, 64)

    [choice] = choices(found)
    [one] = choice["logprobs"]["content"]
    assert one == {**ONCE, "top_logprobs": ONCE["top_logprobs"][:alternatives]}


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"logprobs"',
        b'data: ["logprobs"]',
        b'data: {"choices": [{"logprobs": 5}]}',
        b'data: {"choices": [{"logprobs": {"content": [{}]}}]}',
        b': "logprobs"',
        b'data: {"choices": [{"text": "x"}]}',
        b"",
    ],
)
async def test_what_is_no_log_probability_is_passed_on(line: bytes) -> None:
    assert await converted(COMPLETION, line + b"\n\n", 5) == line + b"\n\n"


async def test_a_body_that_is_cut_short_or_is_one_long_line_is_passed_on() -> None:
    assert await converted(CHAT, b"data: {", 7) == b"data: {"
    long = b"x" * (9 << 20)

    assert await converted(CHAT, long, len(long)) == long


@pytest.mark.parametrize(("engine", "as_chat"), [("llamacpp", True), ("vllm", False)])
def test_only_llamacpp_has_the_form_of_a_chat_for_both(engine: str, as_chat: bool) -> None:
    assert ENGINES[engine].logprobs_as_chat is as_chat


@pytest.fixture(scope="module")
def client(start: Any) -> Iterator[openai.OpenAI]:
    source = str(sage_cache() / "models" / "smollm2-135m-instruct.gguf")
    limits = {"start_timeout_s": 120, "timeout_s": 20}
    model = {"engine": "llamacpp", "kind": "chat", "source": source, "health": limits}
    with start({"talk": model}, wait=False) as gateway:
        gateway.until(gateway.healthy, 120)
        url = f"{gateway.url.rstrip('/')}/v1"
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60) as client:
            yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("count", [0, 2])
def test_openais_client_reads_the_lists_of_a_completion(
    client: openai.OpenAI, count: int, stream: bool
) -> None:
    wanted: Any = {"model": "talk", "prompt": "Once upon", "logprobs": count, "stream": stream}
    answer: Any = client.completions.create(**wanted, max_tokens=4, temperature=0)

    pages = [page.choices[0] for page in (answer if stream else [answer]) if page.choices]
    text = "".join(choice.text for choice in pages)
    found = [choice.logprobs for choice in pages if choice.logprobs is not None]
    tokens = [token for one in found for token in one.tokens]
    offsets = [offset for one in found for offset in one.text_offset]
    assert (len(tokens), "".join(tokens)) == (4, text)
    assert [text[o : o + len(t)] for o, t in zip(offsets, tokens, strict=True)] == tokens
    for one in found:
        for token, value, top in zip(one.tokens, one.token_logprobs, one.top_logprobs, strict=True):
            assert top[token] == value == max(top.values())  # the likeliest is chosen
            assert len(top) == max(count, 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("more", [{}, {"top_logprobs": 0}, {"top_logprobs": 2}])
def test_openais_client_reads_as_many_alternatives_of_a_chat_as_it_asked_for(
    client: openai.OpenAI, more: dict[str, int], stream: bool
) -> None:
    wanted: Any = {"model": "talk", "messages": [{"role": "user", "content": "Hi"}], **more}
    answer: Any = client.chat.completions.create(
        **wanted, logprobs=True, stream=stream, max_tokens=4, temperature=0
    )

    pages = [page.choices[0] for page in (answer if stream else [answer]) if page.choices]
    tokens = [t for c in pages if c.logprobs is not None for t in c.logprobs.content]
    assert len(tokens) == 4
    assert {len(token.top_logprobs) for token in tokens} == {more.get("top_logprobs", 0)}
