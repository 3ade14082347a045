"""Idempotency through failures: a killed gateway, a file that cannot be used."""

import sqlite3
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_process import gateway_process
from prometheus_client import CollectorRegistry

from sage_gateway.idempotency.counters import IdempotencyMetrics
from sage_gateway.idempotency.resilient_store import ResilientStore, Unavailable
from sage_gateway.idempotency.sqlite import SqliteIdempotencyStore
from sage_gateway.idempotency.sqlite_tables import AnswerBlocks
from sage_gateway.idempotency.store_protocol import RecordedAnswer

CHAT = "/v1/chat/completions"


def ask(client: httpx.Client, content: str, headers: dict[str, str], **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": content}]
    body = {"model": "talk", "messages": messages, **more}
    return client.post(CHAT, json=body, headers=headers)


def new_id_headers() -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex}


def errors(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[1]) for line in lines if line.startswith("sage_gateway_ledger_errors_t")
    )


def file_of(home: Path) -> Path:
    return home / "data" / "gateway" / "ledger.sqlite"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_from_before_kill_9_is_replayed_from_the_file(
    tmp_path: Path, fake: Any, stream: bool
) -> None:
    id_headers = new_id_headers()
    with gateway_process(tmp_path, {"talk": fake()}) as (process, client):
        first = ask(client, "echo one two", id_headers, stream=stream)
        process.kill()

    with gateway_process(tmp_path, {"talk": fake()}) as (process, client):
        again = ask(client, "echo one two", id_headers, stream=stream)
        metrics = client.get("/metrics").text

    assert again.headers["x-sage-ledger"] == "hit"
    assert again.content == first.content
    assert "sage_gateway_requests_total{" not in metrics
    assert file_of(tmp_path).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "found", [b"not a database, " * 1000, b"SQLite format 3\x00" + b"\xff" * 9000]
)
def test_a_corrupt_file_is_renamed_and_a_new_one_created(
    start: Any, fake: Any, tmp_path: Path, found: bytes
) -> None:
    file = file_of(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_bytes(found)

    with start({"talk": fake()}, home=tmp_path) as gateway:
        id_headers = new_id_headers()
        ask(gateway.client, "echo hi", id_headers)
        again = ask(gateway.client, "echo hi", id_headers)

    assert again.headers["x-sage-ledger"] == "hit"
    assert file.with_name("ledger.sqlite.corrupt").read_bytes() == found


def test_a_file_that_is_corrupted_later_is_renamed_too(
    tmp_path: Path, start: Any, fake: Any
) -> None:
    file = file_of(tmp_path)
    with start({"talk": fake()}, home=tmp_path) as gateway:
        for _ in range(50):
            ask(gateway.client, "echo " + "word " * 300, new_id_headers())
        id_headers = new_id_headers()
        ask(gateway.client, "echo hi", id_headers)
    with file.open("r+b") as half:
        half.seek(4096)
        half.write(b"\xff" * (file.stat().st_size - 8192))

    with start({"talk": fake()}, home=tmp_path) as gateway:
        answers = [ask(gateway.client, "echo hi", id_headers) for _ in range(3)]
        gateway.until(lambda: file.with_name("ledger.sqlite.corrupt").exists())

    assert {answer.status_code for answer in answers} == {200}


def test_a_locked_file_delays_no_answer_and_has_them_all_later(
    start: Any, fake: Any, tmp_path: Path
) -> None:
    file = file_of(tmp_path)
    with start({"talk": fake()}, home=tmp_path) as gateway:
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN EXCLUSIVE")
            answers = [ask(gateway.client, "echo hi", new_id_headers()) for _ in range(20)]
            time.sleep(1.0)  # its thread waits for the lock and retries
            id_headers = new_id_headers()
            first, again = (ask(gateway.client, "echo hi", id_headers) for _ in range(2))
            other.rollback()

        assert {answer.status_code for answer in [*answers, first, again]} == {200}
        assert again.headers["x-sage-ledger"] == "hit"
        # Half of them: a busy machine delays some. A wait for the lock would be 0.5 s for each.
        assert sorted(answer.elapsed.total_seconds() for answer in answers)[10] < 0.4
        assert errors(gateway.client) == 0

    blocks = AnswerBlocks(file, ttl_s=60, bytes_max=1 << 20, file_bytes_max=1 << 22)
    blocks.open()
    assert len(blocks.places) == 21
    blocks.close()


def test_a_folder_that_cannot_be_written_fails_no_request(
    start: Any, fake: Any, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")

    with start({"talk": fake()}, home=tmp_path) as gateway:
        id_headers = new_id_headers()
        answers = [ask(gateway.client, "echo hi", id_headers, stream=s) for s in (False, True)]

        assert {answer.status_code for answer in answers} == {200}
        assert errors(gateway.client) >= 1


async def test_a_store_on_a_full_disk_is_skipped(tmp_path: Path) -> None:
    metrics = IdempotencyMetrics(CollectorRegistry())
    store = SqliteIdempotencyStore(
        tmp_path / "l", ttl_s=60, bytes_max=1 << 20, file_bytes_max=64 << 10
    )
    resilient = ResilientStore(store, metrics)
    await resilient.open()

    for n in range(3):
        assert await resilient.claim(bytes([n]), b"d") is None
    small = await resilient.record(b"\0", RecordedAnswer(b"d", False, b"x"))
    large = await resilient.record(b"\1", RecordedAnswer(b"d", False, b"x" * 200_000))

    assert (small, large) == (True, False)
    assert await resilient.claim(b"\0", b"d") is Unavailable.UNAVAILABLE
    await resilient.close()
