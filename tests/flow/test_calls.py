"""Behaviour of Caller that no scripted engine can show; the rest is in tests/conformance."""

import asyncio
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from struct import pack
from typing import Any

import pytest

import sage_flink as sage
from sage_flink.common import PoolError, Record
from sage_flink.common.errors import PoolAway
from sage_flink.flow import Batching, Call, Reply, Retry
from sage_flink.flow.calls import embeddings
from sage_flink.flow.calls.caller import Caller

CHAT = sage.chat(model="m")


def node(spec: Any = CHAT, **settings: Any) -> Call:
    return Call("ask", "in", spec, **{"capacity": 8, "timeout_s": 5.0, **settings})


def question(text: str = "x") -> Record:
    return Record("r", {"messages": [{"role": "user", "content": text}], "text": text})


def completion() -> Reply:
    message = {"role": "assistant", "content": "yes"}
    return Reply(200, json.dumps({"choices": [{"index": 0, "message": message}]}).encode())


class Scripted:
    """A pool that replies or raises as scripted; the last entry repeats."""

    def __init__(self, *replies: Reply | BaseException) -> None:
        self.replies, self.requests = list(replies), 0

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        reply = self.replies[min(self.requests, len(self.replies) - 1)]
        self.requests += 1
        if isinstance(reply, BaseException):
            raise reply
        return reply


async def test_waiting_for_an_unreachable_pool_uses_no_attempts() -> None:
    pool = Scripted(*[PoolAway("away")] * 5, completion())

    out = await Caller(node(retry=Retry(1)), pool.post, job="j").call(question())

    assert isinstance(out, Record)
    assert out.value["answer"] == "yes"
    assert pool.requests == 6


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), OSError("disk")])
async def test_any_error_of_a_pool_is_a_failure_with_a_reason(error: Exception) -> None:
    out = await Caller(node(), Scripted(error).post, job="j").call(question())

    assert not isinstance(out, Record)
    assert (out.step, out.attempts) == ("ask", 1)
    assert type(error).__name__ in out.reason


async def test_an_answer_that_the_spec_rejects_carries_its_attempts() -> None:
    pool = Scripted(Reply(503, b""), Reply(200, b'{"choices": []}'))

    out = await Caller(node(), pool.post, job="j").call(question())

    assert not isinstance(out, Record)
    assert out.attempts == 2
    assert out.reason.startswith("m: the answer is not a chat completion")


async def test_a_cancelled_record_ends_its_request() -> None:
    ended = asyncio.Event()

    async def hang(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return Reply(200, b"{}")

    caller = Caller(node(sage.embed(model="m"), batching=Batching(linger_s=0)), hang, job="j")
    task = asyncio.create_task(caller.call(question()))
    await asyncio.sleep(0.05)
    task.cancel()

    await asyncio.wait_for(ended.wait(), 1)
    await caller.aclose()


async def test_texts_are_batched_while_requests_are_in_flight() -> None:
    sizes = []

    async def slow(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        texts = json.loads(body)["input"]
        sizes.append(len(texts))
        await asyncio.sleep(0.1)
        return page(*(row(n) for n in range(len(texts))))

    caller = Caller(
        node(sage.embed(model="m"), batching=Batching(linger_s=0, items_max=32)), slow, job="j"
    )
    await asyncio.gather(*(caller.call(question(str(n))) for n in range(40)))
    await caller.aclose()

    assert sizes[:4] == [1, 1, 1, 1]
    assert sum(sizes) == 40
    assert len(sizes) == 6


def row(index: int, *numbers: float) -> dict[str, Any]:
    floats = numbers or (1.0, 2.0)
    return {
        "index": index,
        "embedding": b64encode(pack(f"<{len(floats)}f", *floats)).decode(),
    }


def page(*rows: Mapping[str, Any]) -> Reply:
    return Reply(200, json.dumps({"data": rows}).encode())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(1, float("inf"), 0.0), "not finite"),
        ({"index": 1, "embedding": "%%%%"}, "not base64"),
        ({"index": 1, "embedding": "AAA="}, "2 bytes"),
        ({"index": 1, "embedding": [0.5, None]}, "not finite"),
    ],
)
def test_a_bad_vector_fails_only_its_text(bad: dict[str, Any], reason: str) -> None:
    first, second, third = embeddings.read("m", page(row(0), bad, row(2)).body, 3)

    assert isinstance(first, bytes)
    assert isinstance(third, bytes)
    assert reason in str(second)


def test_two_vectors_for_one_text_are_an_error() -> None:
    first, second = embeddings.read("m", page(row(0), row(1), row(1)).body, 2)

    assert isinstance(first, bytes)
    assert "two embeddings" in str(second)


@pytest.mark.parametrize(
    "answer",
    [page(row(0), row(7)), page(row(0)), page(), Reply(200, b'{"data": {}}'), Reply(200, b"[")],
    ids=["a stranger", "too few, renumbered", "none", "no list", "no JSON"],
)
def test_a_vector_without_a_valid_index_is_not_used(answer: Reply) -> None:
    with pytest.raises(PoolError):
        embeddings.read("m", answer.body, 3)


def test_a_vector_of_a_size_unlike_most_earlier_ones_is_an_error() -> None:
    seen: Counter[int] = Counter()
    embeddings.of_one_size([b"12345678", b"12345678"], seen)

    (alone,) = embeddings.of_one_size([b"1234"], seen)
    (named,) = embeddings.of_one_size([b"1234"], seen, dim=1)

    assert "dimension 1, not 2" in str(alone)
    assert named == b"1234"
