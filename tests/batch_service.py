"""A batch service without a gateway: the pool is a function, so each test times its answers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from sage_gateway.batches import BatchService
from sage_gateway.batches.batch_store import OwnedBatch
from sage_gateway.batches.schema import Batch, NewBatch, Status
from sage_gateway.config.storage_spec import BatchesSpec
from sage_gateway.requests.response import Response

CHAT = "/v1/chat/completions"
GOOD = Response(200, b'{"choices":[]}')
Pool = Callable[[str], Awaitable[Response]]


@asynccontextmanager
async def service_in(folder: Path, pool: Pool, **spec: Any) -> AsyncIterator[BatchService]:
    """A batch service; its ``pool`` is called with the text of each line."""

    async def send(_: OwnedBatch, __: str, ___: str, body: bytes) -> Response:
        return await pool(json.loads(body)["text"])

    service = BatchService(
        BatchesSpec(**spec),
        folder,
        send=send,
        is_known_model=lambda _: True,
        registry=CollectorRegistry(),
    )
    await service.open()
    try:
        yield service
    finally:
        await service.close()


def content(*texts: str) -> io.BytesIO:
    lines = [
        {"custom_id": t, "method": "POST", "url": CHAT, "body": {"model": t[:1], "text": t}}
        for t in texts
    ]
    return io.BytesIO("\n".join(json.dumps(line) for line in lines).encode())


async def start(service: BatchService, *texts: str) -> Batch:
    file = await service.upload("acme", "in.jsonl", content(*texts))
    wanted = NewBatch(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    return await service.create("acme", "key-1", wanted)


async def wait_for(
    service: BatchService, batch_id: str, wanted: Callable[[Batch], bool], seconds: float = 10
) -> Batch:
    async with asyncio.timeout(seconds):
        while not wanted(batch := await service.batch("acme", batch_id)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return batch


def has_status(status: Status) -> Callable[[Batch], bool]:
    return lambda batch: batch.status is status


async def lines(service: BatchService, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    path = await service.content("acme", file_id)
    return [json.loads(line) for line in path.read_text().splitlines()]


async def never(_: str) -> Response:
    await asyncio.sleep(60)
    return GOOD


async def immediately(_: str) -> Response:
    return GOOD
