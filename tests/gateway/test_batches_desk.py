"""Batches without a gateway: the pool is a function, so that its answers come when they should."""

import asyncio
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sage_flink.common import StoreUnavailable
from sage_gateway.batches import Desk
from sage_gateway.batches.batch_store import Owned, Rows
from sage_gateway.batches.schema import Batch, Counts, NewBatch, Status
from sage_gateway.config.pool_spec import BatchesSpec
from sage_gateway.errors import EngineFailed, GatewayError, QueueFull
from sage_gateway.openai.error_table import status_of
from sage_gateway.requests.response import Response, error_response

CHAT = "/v1/chat/completions"
GOOD = Response(200, b'{"choices":[]}')
Pool = Callable[[str], Awaitable[Response]]


@asynccontextmanager
async def desk_in(folder: Path, pool: Pool, **spec: Any) -> AsyncIterator[Desk]:
    """A desk whose pool is asked with the text of the line."""

    async def ask(_: Owned, __: str, ___: str, body: bytes) -> Response:
        return await pool(json.loads(body)["text"])

    desk = Desk(
        BatchesSpec(**spec), folder, ask=ask, known=lambda _: True, registry=CollectorRegistry()
    )
    await desk.open()
    try:
        yield desk
    finally:
        await desk.close()


def content(*texts: str) -> io.BytesIO:
    lines = [
        {"custom_id": t, "method": "POST", "url": CHAT, "body": {"model": t[:1], "text": t}}
        for t in texts
    ]
    return io.BytesIO("\n".join(json.dumps(line) for line in lines).encode())


async def begun(desk: Desk, *texts: str) -> Batch:
    file = await desk.upload("acme", "in.jsonl", content(*texts))
    wanted = NewBatch(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    return await desk.create("acme", "key-1", wanted)


async def when(
    desk: Desk, batch_id: str, wanted: Callable[[Batch], bool], seconds: float = 10
) -> Batch:
    async with asyncio.timeout(seconds):
        while not wanted(batch := await desk.batch("acme", batch_id)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return batch


def is_(status: Status) -> Callable[[Batch], bool]:
    return lambda batch: batch.status is status


async def lines(desk: Desk, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    path = await desk.content("acme", file_id)
    return [json.loads(line) for line in path.read_text().splitlines()]


async def never(_: str) -> Response:
    await asyncio.sleep(60)
    return GOOD


async def at_once(_: str) -> Response:
    return GOOD


async def test_some_lines_are_asked_at_a_time_and_batches_share_the_room(tmp_path: Path) -> None:
    running = most = 0
    order: list[str] = []

    async def pool(text: str) -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(text[2])
        await asyncio.sleep(0.005)
        running -= 1
        return GOOD

    async with desk_in(tmp_path, pool, lines_at_once=3) as desk:
        texts = [[f"m {name}{i}" for i in range(30)] for name in "ab"]
        batches = [await begun(desk, *some) for some in texts]
        for batch in batches:
            await when(desk, batch.id, is_(Status.COMPLETED))

    assert most == 3
    assert Counter(order[:40])["b"] >= 10


async def test_a_line_waits_for_a_limit_and_is_then_answered(tmp_path: Path) -> None:
    asked = Counter[str]()

    async def pool(text: str) -> Response:
        asked[text] += 1
        if text == "limited" and asked[text] < 3:
            return error_response(QueueFull("later", code="rate_limit_exceeded"))
        return GOOD

    async with desk_in(tmp_path, pool) as desk:
        batch = await begun(desk, "limited", "free")
        early = await when(desk, batch.id, lambda b: b.request_counts.completed == 1)
        done = await when(desk, batch.id, is_(Status.COMPLETED))

    assert early.status is Status.IN_PROGRESS
    assert asked == {"limited": 3, "free": 1}
    assert done.request_counts == Counts(total=2, completed=2, failed=0)


async def test_a_line_that_fails_again_and_again_is_told_in_the_error_file(tmp_path: Path) -> None:
    async def pool(text: str) -> Response:
        return error_response(EngineFailed("broken", retry_after_s=0)) if text == "bad" else GOOD

    async with desk_in(tmp_path, pool) as desk:
        batch = await begun(desk, "bad", "good")
        done = await when(desk, batch.id, is_(Status.COMPLETED))
        errors = await lines(desk, done.error_file_id)

    assert [(e["custom_id"], e["response"]["status_code"]) for e in errors] == [("bad", 502)]


async def test_what_was_not_answered_in_time_is_told_as_expired(tmp_path: Path) -> None:
    async with desk_in(tmp_path, at_once) as desk:
        file = await desk.upload("acme", "in", content("first", "second"))
    rows = Rows(tmp_path / "batches.sqlite")
    batch = Batch(
        id="batch_1",
        endpoint=CHAT,
        input_file_id=file.id,
        completion_window="24h",
        created_at=0,
        expires_at=int(time.time()) + 1,
    )
    rows.add_batch(Owned("acme", "key-1", batch))
    rows.close()

    async def pool(text: str) -> Response:
        return GOOD if text == "first" else await never(text)

    async with desk_in(tmp_path, pool) as desk:
        done = await when(desk, "batch_1", is_(Status.EXPIRED))
        output, errors = (
            await lines(desk, done.output_file_id),
            await lines(desk, done.error_file_id),
        )

    assert done.expired_at is not None
    assert [one["custom_id"] for one in output] == ["first"]
    assert [(e["custom_id"], e["response"], e["error"]["code"]) for e in errors] == [
        ("second", None, "batch_expired")
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [(Status.FINALIZING, Status.COMPLETED), (Status.CANCELLING, Status.CANCELLED)],
)
async def test_a_batch_that_was_gathering_its_answers_gathers_them_again(
    tmp_path: Path, before: Status, after: Status
) -> None:
    async with desk_in(tmp_path, never) as desk:
        made = await begun(desk, "a", "b", "c")
        made = await when(desk, made.id, is_(Status.IN_PROGRESS))
    rows = Rows(tmp_path / "batches.sqlite")
    rows.record(made.id, 3, b'{"custom_id": "c"}\n', good=True)
    rows.record(made.id, 1, b'{"custom_id": "a"}\n', good=True)
    rows.record(made.id, 1, b"a second answer\n", good=True)
    rows.save(made.model_copy(update={"status": before}))
    rows.close()

    async with desk_in(tmp_path, never) as desk:
        done = await when(desk, made.id, is_(after))
        output = await lines(desk, done.output_file_id)

        assert [one["custom_id"] for one in output] == ["a", "c"]
        assert done.request_counts.completed == 2
        assert done.error_file_id is None
    async with desk_in(tmp_path, never) as desk:
        assert await desk.batch("acme", made.id) == done
        assert await lines(desk, done.output_file_id) == output


async def test_a_stopped_desk_asks_only_for_what_has_no_answer(tmp_path: Path) -> None:
    asked = Counter[str]()

    async def pool(text: str) -> Response:
        asked[text] += 1
        await asyncio.sleep(0.01)
        return GOOD

    texts = [str(i) for i in range(50)]
    async with desk_in(tmp_path, pool, lines_at_once=4) as desk:
        batch = await begun(desk, *texts)
        await when(desk, batch.id, lambda b: b.request_counts.completed >= 20)
    async with desk_in(tmp_path, pool, lines_at_once=4) as desk:
        done = await when(desk, batch.id, is_(Status.COMPLETED))
        output = await lines(desk, done.output_file_id)

    assert [one["custom_id"] for one in output] == texts
    assert sum(asked.values()) <= 54


async def test_open_batches_of_a_tenant_are_bounded(tmp_path: Path) -> None:
    async with desk_in(tmp_path, never, open_max=2) as desk:
        for _ in range(2):
            await begun(desk, "a")
        with pytest.raises(GatewayError) as caught:
            await begun(desk, "a")

    assert (status_of(caught.value), caught.value.retry_after_s) == (429, 60)


async def test_too_many_lines_are_a_mistake(tmp_path: Path) -> None:
    async with desk_in(tmp_path, at_once, lines_max=3) as desk:
        batch = await begun(desk, "a", "b", "c", "d")
        failed = await when(desk, batch.id, is_(Status.FAILED))

    assert failed.errors is not None
    assert [(e.code, e.line) for e in failed.errors.data] == [("too_many_lines", 4)]


async def test_a_batch_can_be_cancelled_in_its_first_moment(tmp_path: Path) -> None:
    async with desk_in(tmp_path, never) as desk:
        batch = await begun(desk, "a")
        await desk.cancel("acme", batch.id)

        done = await when(desk, batch.id, is_(Status.CANCELLED))

    assert done.output_file_id is None


async def test_a_broken_database_closes_the_desk_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "batches.sqlite").write_bytes(b"no database" * 1000)

    async with desk_in(tmp_path, at_once) as desk:
        with pytest.raises(StoreUnavailable):
            await desk.file("acme", "file-1")
        with pytest.raises(StoreUnavailable):
            await begun(desk, "a")


async def test_two_gateways_of_one_folder_do_not_both_run_its_batches(tmp_path: Path) -> None:
    async with desk_in(tmp_path, at_once) as first, desk_in(tmp_path, at_once) as second:
        batch = await begun(first, "a")
        with pytest.raises(StoreUnavailable):
            await second.batch("acme", batch.id)
        await when(first, batch.id, is_(Status.COMPLETED))


async def test_a_model_that_hangs_stops_no_other(tmp_path: Path) -> None:
    async def pool(text: str) -> Response:
        return await never(text) if text.startswith("h") else GOOD

    async with desk_in(tmp_path, pool, lines_at_once=2) as desk:
        hung = await begun(desk, *(f"hung {i}" for i in range(5)))
        other = await begun(desk, *(f"other {i}" for i in range(5)))
        await when(desk, other.id, is_(Status.COMPLETED))

        assert (await desk.batch("acme", hung.id)).request_counts.completed == 0


async def test_what_fails_within_the_gateway_is_tried_again_and_can_be_cancelled(
    tmp_path: Path,
) -> None:
    async def pool(_: str) -> Response:
        raise ZeroDivisionError

    async with desk_in(tmp_path, pool) as desk:
        batch = await begun(desk, "a")
        batch = await when(desk, batch.id, is_(Status.IN_PROGRESS))
        await asyncio.sleep(0.2)
        await desk.cancel("acme", batch.id)
        await when(desk, batch.id, is_(Status.CANCELLED))
