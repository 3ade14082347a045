"""The batch service without a gateway: its states, its retries, and what survives a restart."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from batch_service import (
    CHAT,
    GOOD,
    content,
    has_status,
    immediately,
    lines,
    never,
    service_in,
    start,
    wait_for,
)

from sage_flink.common import StoreUnavailable
from sage_gateway.batches.batch_store import BatchStore, OwnedBatch
from sage_gateway.batches.schema import Batch, RequestCounts, Status
from sage_gateway.errors import EngineFailed, GatewayError, QueueFull
from sage_gateway.openai.error_table import status_of
from sage_gateway.requests.response import Response, error_response


async def test_lines_in_flight_are_bounded_and_batches_share_the_bound(tmp_path: Path) -> None:
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

    async with service_in(tmp_path, pool, lines_at_once=3) as service:
        texts = [[f"m {name}{i}" for i in range(30)] for name in "ab"]
        batches = [await start(service, *some) for some in texts]
        for batch in batches:
            await wait_for(service, batch.id, has_status(Status.COMPLETED))

    assert most == 3
    assert Counter(order[:40])["b"] >= 10


async def test_a_line_over_a_rate_limit_is_retried_until_it_is_answered(tmp_path: Path) -> None:
    asked = Counter[str]()

    async def pool(text: str) -> Response:
        asked[text] += 1
        if text == "limited" and asked[text] < 3:
            return error_response(QueueFull("later", code="rate_limit_exceeded"))
        return GOOD

    async with service_in(tmp_path, pool) as service:
        batch = await start(service, "limited", "free")
        early = await wait_for(service, batch.id, lambda b: b.request_counts.completed == 1)
        done = await wait_for(service, batch.id, has_status(Status.COMPLETED))

    assert early.status is Status.IN_PROGRESS
    assert asked == {"limited": 3, "free": 1}
    assert done.request_counts == RequestCounts(total=2, completed=2, failed=0)


async def test_a_line_that_keeps_failing_is_written_to_the_error_file(tmp_path: Path) -> None:
    async def pool(text: str) -> Response:
        return error_response(EngineFailed("broken", retry_after_s=0)) if text == "bad" else GOOD

    async with service_in(tmp_path, pool) as service:
        batch = await start(service, "bad", "good")
        done = await wait_for(service, batch.id, has_status(Status.COMPLETED))
        errors = await lines(service, done.error_file_id)

    assert [(e["custom_id"], e["response"]["status_code"]) for e in errors] == [("bad", 502)]


async def test_lines_without_an_answer_at_expiry_are_written_to_the_error_file(
    tmp_path: Path,
) -> None:
    async with service_in(tmp_path, immediately) as service:
        file = await service.upload("acme", "in", content("first", "second"))
    store = BatchStore(tmp_path / "batches.sqlite")
    batch = Batch(
        id="batch_1",
        endpoint=CHAT,
        input_file_id=file.id,
        completion_window="24h",
        created_at=0,
        expires_at=int(time.time()) + 3,  # "first" has at least two seconds
    )
    assert store.add_batch(OwnedBatch("acme", "key-1", batch), time.time())
    store.close()

    async def pool(text: str) -> Response:
        return GOOD if text == "first" else await never(text)

    async with service_in(tmp_path, pool) as service:
        done = await wait_for(service, "batch_1", has_status(Status.EXPIRED))
        output, errors = (
            await lines(service, done.output_file_id),
            await lines(service, done.error_file_id),
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
async def test_output_files_are_written_again_after_a_crash_while_writing_them(
    tmp_path: Path, before: Status, after: Status
) -> None:
    async with service_in(tmp_path, never) as service:
        made = await start(service, "a", "b", "c")
        made = await wait_for(service, made.id, has_status(Status.IN_PROGRESS))
    store = BatchStore(tmp_path / "batches.sqlite")
    store.record(made.id, 3, b'{"custom_id": "c"}\n', good=True)
    store.record(made.id, 1, b'{"custom_id": "a"}\n', good=True)
    store.record(made.id, 1, b"a second answer\n", good=True)
    store.save(made.model_copy(update={"status": before}))
    store.close()

    async with service_in(tmp_path, never) as service:
        done = await wait_for(service, made.id, has_status(after))
        output = await lines(service, done.output_file_id)

        assert [one["custom_id"] for one in output] == ["a", "c"]
        assert done.request_counts.completed == 2
        assert done.error_file_id is None
    async with service_in(tmp_path, never) as service:
        assert await service.batch("acme", made.id) == done
        assert await lines(service, done.output_file_id) == output


async def test_a_restarted_service_sends_only_the_lines_without_an_answer(tmp_path: Path) -> None:
    asked = Counter[str]()

    async def pool(text: str) -> Response:
        asked[text] += 1
        await asyncio.sleep(0.01)
        return GOOD

    texts = [str(i) for i in range(50)]
    async with service_in(tmp_path, pool, lines_at_once=4) as service:
        batch = await start(service, *texts)
        await wait_for(service, batch.id, lambda b: b.request_counts.completed >= 20)
    async with service_in(tmp_path, pool, lines_at_once=4) as service:
        done = await wait_for(service, batch.id, has_status(Status.COMPLETED))
        output = await lines(service, done.output_file_id)

    assert [one["custom_id"] for one in output] == texts
    assert sum(asked.values()) <= 54


async def test_open_batches_of_a_tenant_are_bounded(tmp_path: Path) -> None:
    async with service_in(tmp_path, never, open_max=2) as service:
        for _ in range(2):
            await start(service, "a")
        with pytest.raises(GatewayError) as caught:
            await start(service, "a")

    assert (status_of(caught.value), caught.value.retry_after_s) == (429, 60)


async def test_too_many_lines_fail_the_batch(tmp_path: Path) -> None:
    async with service_in(tmp_path, immediately, lines_max=3) as service:
        batch = await start(service, "a", "b", "c", "d")
        failed = await wait_for(service, batch.id, has_status(Status.FAILED))

    assert failed.errors is not None
    assert [(e.code, e.line) for e in failed.errors.data] == [("too_many_lines", 4)]


async def test_a_batch_can_be_cancelled_right_after_its_creation(tmp_path: Path) -> None:
    async with service_in(tmp_path, never) as service:
        batch = await start(service, "a")
        await service.cancel("acme", batch.id)

        done = await wait_for(service, batch.id, has_status(Status.CANCELLED))

    assert done.output_file_id is None


async def test_a_broken_database_closes_the_batch_service_only(tmp_path: Path) -> None:
    (tmp_path / "batches.sqlite").write_bytes(b"no database" * 1000)

    async with service_in(tmp_path, immediately) as service:
        with pytest.raises(StoreUnavailable):
            await service.file("acme", "file-1")
        with pytest.raises(StoreUnavailable):
            await start(service, "a")


async def test_a_second_gateway_in_the_same_folder_does_not_run_its_batches(tmp_path: Path) -> None:
    async with (
        service_in(tmp_path, immediately) as first,
        service_in(tmp_path, immediately) as second,
    ):
        batch = await start(first, "a")
        with pytest.raises(StoreUnavailable):
            await second.batch("acme", batch.id)
        await wait_for(first, batch.id, has_status(Status.COMPLETED))


async def test_a_model_that_hangs_does_not_block_another(tmp_path: Path) -> None:
    async def pool(text: str) -> Response:
        return await never(text) if text.startswith("h") else GOOD

    async with service_in(tmp_path, pool, lines_at_once=2) as service:
        hung = await start(service, *(f"hung {i}" for i in range(5)))
        other = await start(service, *(f"other {i}" for i in range(5)))
        await wait_for(service, other.id, has_status(Status.COMPLETED))

        assert (await service.batch("acme", hung.id)).request_counts.completed == 0


async def test_a_batch_that_fails_inside_the_gateway_is_retried_and_can_be_cancelled(
    tmp_path: Path,
) -> None:
    async def pool(_: str) -> Response:
        raise ZeroDivisionError

    async with service_in(tmp_path, pool) as service:
        batch = await start(service, "a")
        batch = await wait_for(service, batch.id, has_status(Status.IN_PROGRESS))
        await asyncio.sleep(0.2)
        await service.cancel("acme", batch.id)
        await wait_for(service, batch.id, has_status(Status.CANCELLED))
