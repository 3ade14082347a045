"""Files that expire: from that second on they are not found, and a batch keeps its input."""

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from batch_service import CHAT, GOOD, content, has_status, immediately, never, service_in, wait_for

from sage_gateway.batches.batch_store import BatchStore, OwnedBatch
from sage_gateway.batches.schema import Batch, FileObject, NewBatch, Status
from sage_gateway.errors import NotFound
from sage_gateway.requests.response import Response
from sage_gateway.storage.exclusive_database import ListPage

HOUR = {"anchor": "created_at", "seconds": 3600}
PAGE = ListPage(None, 10)


def expire_in(folder: Path, seconds: float, *, old: FileObject) -> int:
    """Set the expiry of a file, in the database of a service that is closed."""
    store = BatchStore(folder / "batches.sqlite")
    at_s = int(time.time() + seconds)
    new = old.model_copy(update={"expires_at": at_s})
    store._db.execute("UPDATE files SET page = ? WHERE id = ?", (new.model_dump_json(), old.id))
    store.close()
    return at_s


def stored(folder: Path) -> set[str]:
    """The files on the disk."""
    return {path.name for path in (folder / "files").iterdir()}


async def until_deleted(folder: Path, file_id: str) -> None:
    async with asyncio.timeout(10):
        while file_id in stored(folder):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_file_is_found_until_it_expires_and_is_then_deleted(tmp_path: Path) -> None:
    async with service_in(tmp_path, immediately) as service:
        kept = await service.upload("acme", "kept", content("a"))
        file = await service.upload("acme", "expires", content("a"))
    at_s = expire_in(tmp_path, 3, old=file)

    async with service_in(tmp_path, immediately) as service:
        assert (await service.file("acme", file.id)).expires_at == at_s
        await asyncio.sleep(at_s - time.time())
        for ask in (service.file, service.content, service.delete):
            with pytest.raises(NotFound, match="it has expired"):
                await ask("acme", file.id)
        assert await service.files("acme", None, PAGE) == [kept]
        await until_deleted(tmp_path, file.id)
        assert time.time() - at_s < 2
        assert stored(tmp_path) == {kept.id}


async def test_what_expired_while_no_gateway_ran_is_deleted_at_the_next_start(
    tmp_path: Path,
) -> None:
    async with service_in(tmp_path, immediately) as service:
        file = await service.upload("acme", "in", content("a"))
    expire_in(tmp_path, -5, old=file)

    async with service_in(tmp_path, immediately) as service:
        with pytest.raises(NotFound):
            await service.file("acme", file.id)
        await until_deleted(tmp_path, file.id)


async def test_of_two_gateways_in_one_folder_the_one_that_serves_files_deletes_them(
    tmp_path: Path,
) -> None:
    async with service_in(tmp_path, immediately) as service:
        file = await service.upload("acme", "in", content("a"))
    expire_in(tmp_path, 2, old=file)

    async with service_in(tmp_path, immediately), service_in(tmp_path, immediately):
        await until_deleted(tmp_path, file.id)
    async with service_in(tmp_path, immediately) as service:
        assert await service.files("acme", None, PAGE) == []


async def test_a_batch_keeps_an_input_that_expires_until_it_ends(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async def pool(_: str) -> Response:
        await may_answer.wait()
        return GOOD

    async with service_in(tmp_path, never) as service:
        file = await service.upload("acme", "in", content("a", "b"))
        wanted = NewBatch(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        batch = await service.create("acme", "key-1", wanted)
        await wait_for(service, batch.id, has_status(Status.IN_PROGRESS))
    expire_in(tmp_path, -5, old=file)

    async with service_in(tmp_path, pool) as service:
        with pytest.raises(NotFound):
            await service.file("acme", file.id)
        await asyncio.sleep(0.2)
        assert file.id in stored(tmp_path)
        may_answer.set()
        done = await wait_for(service, batch.id, has_status(Status.COMPLETED))
    assert done.request_counts.completed == 2
    async with service_in(tmp_path, pool):
        await until_deleted(tmp_path, file.id)


async def test_a_batch_of_an_input_that_has_expired_is_refused_and_says_so(tmp_path: Path) -> None:
    async with service_in(tmp_path, immediately) as service:
        file = await service.upload("acme", "in", content("a"))
    expire_in(tmp_path, -5, old=file)

    async with service_in(tmp_path, immediately) as service:
        wanted = NewBatch(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        with pytest.raises(NotFound, match="it has expired") as caught:
            await service.create("acme", "key-1", wanted)

        assert caught.value.param == "input_file_id"
        assert await service.batches("acme", PAGE) == []


async def test_no_batch_is_added_whose_input_expires_after_the_check(tmp_path: Path) -> None:
    async with service_in(tmp_path, immediately) as service:
        file = await service.upload("acme", "in", content("a"))
    at_s = expire_in(tmp_path, 60, old=file)
    batch = Batch(
        id="batch_1",
        endpoint=CHAT,
        input_file_id=file.id,
        completion_window="24h",
        created_at=0,
        expires_at=at_s,
    )
    owned, store = OwnedBatch("acme", "key-1", batch), BatchStore(tmp_path / "batches.sqlite")

    assert not store.add_batch(owned, now_s=at_s)
    assert store.open_batches() == []
    assert store.add_batch(owned, now_s=at_s - 1)
    store.close()


async def test_a_list_that_continues_after_an_expired_file_is_an_error_and_not_an_empty_page(
    tmp_path: Path,
) -> None:
    async with service_in(tmp_path, immediately) as service:
        for list_page in (
            service.batches("acme", ListPage("x", 10)),
            service.files("acme", None, ListPage("x", 10)),
        ):
            with pytest.raises(NotFound, match="list from the start") as caught:
                await list_page
            assert caught.value.param == "after"


def run_batch(client: openai.OpenAI, **more: Any) -> Any:
    """A batch with a line that is answered and one that fails, after its end."""
    lines = [
        {
            "custom_id": text,
            "method": "POST",
            "url": CHAT,
            "body": {"model": "talk", "messages": [{"role": "user", "content": text}]},
        }
        for text in ("echo hi", "overflow")
    ]
    raw = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", raw), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", **more
    )
    end = time.monotonic() + 20
    while (batch := client.batches.retrieve(made.id)).status != "completed":
        assert time.monotonic() < end, batch
        time.sleep(0.05)
    return batch


def test_a_client_sets_the_expiry_of_its_file(client: openai.OpenAI) -> None:
    file = client.files.create(
        file=("in.jsonl", b"x"),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )

    assert file.expires_at == file.created_at + 3600
    assert client.files.retrieve(file.id) == file
    assert client.files.create(file=io.BytesIO(b"x"), purpose="batch").expires_at is None


def test_the_output_files_of_a_batch_expire_as_its_request_says(client: openai.OpenAI) -> None:
    batch, other = run_batch(client, output_expires_after=HOUR), run_batch(client)

    for file_id in (batch.output_file_id, batch.error_file_id):
        file = client.files.retrieve(file_id)
        assert file.expires_at == file.created_at + 3600
    assert client.files.retrieve(other.output_file_id).expires_at is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"anchor": "created_at", "seconds": "3599"}, "expires_after[seconds]"),
        ({"anchor": "created_at", "seconds": "2592001"}, "expires_after[seconds]"),
        ({"anchor": "created_at", "seconds": "soon"}, "expires_after[seconds]"),
        ({"anchor": "created_at", "seconds": ""}, "expires_after[seconds]"),
        ({"anchor": "last_active_at", "seconds": "3600"}, "expires_after[anchor]"),
        ({"anchor": "created_at"}, "expires_after[seconds]"),
        ({"seconds": "3600"}, "expires_after[anchor]"),
        ({"until": "3600"}, "expires_after[until]"),
    ],
)
def test_a_wrong_expiry_of_a_file_is_a_400_that_names_it(
    gateway: Any, fields: dict[str, str], param: str
) -> None:
    data = {"purpose": "batch"} | {f"expires_after[{k}]": v for k, v in fields.items()}
    answer: httpx.Response = gateway.client.post(
        "/v1/files", files={"file": ("a", b"x")}, data=data
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("expiry", "param"),
    [
        ({"anchor": "created_at", "seconds": 3599}, "output_expires_after.seconds"),
        ({"anchor": "created_at", "seconds": 2_592_001}, "output_expires_after.seconds"),
        ({"anchor": "now", "seconds": 3600}, "output_expires_after.anchor"),
        ({"anchor": "created_at"}, "output_expires_after.seconds"),
        ({**HOUR, "more": 1}, "output_expires_after.more"),
    ],
)
def test_a_wrong_expiry_of_a_batch_is_a_400_that_names_it(
    gateway: Any, expiry: dict[str, Any], param: str
) -> None:
    wanted = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"}
    answer = gateway.client.post("/v1/batches", json={**wanted, "output_expires_after": expiry})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
