"""Files and batches through OpenAI's own client; the engine answers what each line asks for."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

KEY = "sk-sage-test"
CHAT = "/v1/chat/completions"
FORM = "multipart/form-data"


def line(custom_id: str, content: str, **more: Any) -> dict[str, Any]:
    body = {"model": "talk", "messages": [{"role": "user", "content": content}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def content_lines(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or an error file."""
    if file_id is None:
        return []
    return [json.loads(one) for one in client.files.content(file_id).text.splitlines()]


@pytest.fixture
def client(gateway: Any) -> Iterator[openai.OpenAI]:
    with client_of(gateway) as client:
        yield client


def client_of(gateway: Any, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def upload(client: openai.OpenAI, content: bytes) -> str:
    return client.files.create(file=("in.jsonl", content), purpose="batch").id


def start_batch(client: openai.OpenAI, *lines: dict[str, Any], **more: Any) -> Any:
    file_id = upload(client, jsonl(*lines))
    return client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h", **more
    )


def wait_for_end(client: openai.OpenAI, batch_id: str, seconds: float = 20) -> Any:
    return wait_until(client, batch_id, lambda b: b.status not in OPEN, seconds)


OPEN = {"validating", "in_progress", "finalizing", "cancelling"}


def wait_until(
    client: openai.OpenAI, batch_id: str, wanted: Callable[[Any], bool], seconds: float = 20
) -> Any:
    end = time.monotonic() + seconds
    while not wanted(batch := client.batches.retrieve(batch_id)):
        assert time.monotonic() < end, batch
        time.sleep(0.05)
    return batch


def test_a_file_is_stored_listed_downloaded_and_deleted(client: openai.OpenAI) -> None:
    content = jsonl(line("a", "echo hi"))
    file = client.files.create(file=("../../dir/in.jsonl", content), purpose="batch")

    assert (file.bytes, file.filename, file.purpose) == (len(content), "in.jsonl", "batch")
    assert client.files.retrieve(file.id) == file
    assert file in client.files.list(purpose="batch").data
    assert client.files.content(file.id).content == content
    assert client.files.delete(file.id).deleted
    for method in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            method(file.id)
        assert caught.value.code == "file_not_found"


def test_files_are_listed_in_pages(client: openai.OpenAI) -> None:
    ids = [upload(client, b"x") for _ in range(5)]

    newest_first = [file.id for file in client.files.list(limit=2)]
    oldest_first = [file.id for file in client.files.list(limit=2, order="asc")]

    assert newest_first[:5] == ids[::-1]
    assert oldest_first[-5:] == ids


def test_a_batch_answers_every_line_in_openais_schema(client: openai.OpenAI) -> None:
    lines = [line(f"line {i}", f"echo text {i}") for i in range(20)]
    wrong = [line("overflowed", "overflow"), line("failed", "status 418")]

    made = start_batch(client, *lines, *wrong, metadata={"of": "test"})
    batch = wait_for_end(client, made.id)

    assert (made.status, batch.status) == ("validating", "completed")
    assert batch.metadata == {"of": "test"}
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (22, 20, 2)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    output, errors = (
        content_lines(client, batch.output_file_id),
        content_lines(client, batch.error_file_id),
    )
    assert [one["custom_id"] for one in output] == [f"line {i}" for i in range(20)]
    for i, one in enumerate(output):
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        text = one["response"]["body"]["choices"][0]["message"]["content"]
        assert text == f"text {i}"
    assert [(e["custom_id"], e["response"]["status_code"]) for e in errors] == [
        ("overflowed", 400),
        ("failed", 400),
    ]
    assert errors[0]["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_a_batch_of_embeddings_has_a_vector_a_line(client: openai.OpenAI) -> None:
    url = "/v1/embeddings"
    lines = [
        {
            "custom_id": str(i),
            "method": "POST",
            "url": url,
            "body": {"model": "vectors", "input": i},
        }
        for i in ("a", "b")
    ]
    file_id = upload(client, jsonl(*lines))

    batch = client.batches.create(input_file_id=file_id, endpoint=url, completion_window="24h")
    output = content_lines(client, wait_for_end(client, batch.id).output_file_id)

    assert [len(one["response"]["body"]["data"][0]["embedding"]) for one in output] == [4, 4]


def test_invalid_lines_are_reported_by_number_and_no_line_is_sent(
    gateway: Any, client: openai.OpenAI
) -> None:
    before = gateway.engine_stats()["requests"]
    good = line("a", "echo hi")
    content = b"".join(
        (
            jsonl(good),
            b"{not json\n\n",
            jsonl(good, good | {"custom_id": "b", "url": "/v1/embeddings"}),
            jsonl(line("c", "echo hi", model="gpt-9"), line("d", "echo hi", stream=True)),
        )
    )
    file_id = upload(client, content)

    batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    batch = wait_for_end(client, batch.id)

    assert batch.status == "failed"
    assert [(e.line, e.code) for e in batch.errors.data] == [
        (2, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (5, "invalid_url"),
        (6, "model_not_found"),
        (7, "stream_not_supported"),
    ]
    assert all(f"line {e.line}" in e.message for e in batch.errors.data)
    assert gateway.engine_stats()["requests"] == before


def test_an_empty_file_fails(client: openai.OpenAI) -> None:
    batch = client.batches.create(
        input_file_id=upload(client, b"\n\n"), endpoint=CHAT, completion_window="24h"
    )

    assert wait_for_end(client, batch.id).errors.data[0].code == "empty_file"


def test_a_cancelled_batch_keeps_its_answers_and_aborts_the_other_lines(
    start: Any, fake: Any
) -> None:
    pool = {"batches": {"lines_at_once": 2}, "ledger": {"grace_s": 0}}
    with start({"talk": fake()}, pool=pool) as gateway, client_of(gateway) as client:
        quick = [line(f"quick {i}", "echo hi") for i in range(5)]
        batch = start_batch(client, *quick, *(line(f"slow {i}", "sleep 30") for i in range(5)))
        wait_until(client, batch.id, lambda b: b.request_counts.completed == 5)
        with pytest.raises(openai.ConflictError):
            client.files.delete(batch.input_file_id)

        assert client.batches.cancel(batch.id).status == "cancelling"
        batch = wait_for_end(client, batch.id)
        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 0)

        assert batch.status == "cancelled"
        assert batch.cancelling_at <= batch.cancelled_at
        names = {one["custom_id"] for one in content_lines(client, batch.output_file_id)}
        assert names == {f"quick {i}" for i in range(5)}
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)
        assert batch in client.batches.list(limit=1).data
        assert client.files.delete(batch.input_file_id).deleted


def test_files_and_batches_of_another_tenant_are_a_404(gateway: Any) -> None:
    mine, other = (client_of(gateway, create_key(gateway, t)) for t in ("acme", "umbrella"))
    with mine, other:
        batch = start_batch(mine, line("a", "echo hi"))
        batch = wait_for_end(mine, batch.id)

        for ask in (
            lambda: other.files.retrieve(batch.input_file_id),
            lambda: other.files.content(batch.output_file_id),
            lambda: other.files.delete(batch.input_file_id),
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
            lambda: other.batches.create(
                input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
        assert other.files.list().data == []
        assert other.batches.list().data == []
        assert len(mine.batches.list().data) == 1


def create_key(gateway: Any, tenant: str, **limits: int) -> str:
    wanted = {"tenant": tenant, "scopes": ["infer", "read"], "limits": limits}
    key: str = gateway.client.post("/pool/keys", json=wanted).json()["key"]
    return key


def test_a_batch_at_its_rate_limit_waits_and_is_charged_to_its_tenant(
    start: Any, fake: Any
) -> None:
    with start({"talk": fake()}) as gateway:
        key = create_key(
            gateway, "acme", requests_per_minute=120
        )  # two a second once the limit is used up
        gateway.until(gateway.healthy)
        with client_of(gateway, key) as client:
            batch = start_batch(client, *(line(str(i), "echo hi") for i in range(122)))
            batch = wait_for_end(client, batch.id)
            usage = gateway.client.get("/v1/usage").json()["data"]

    assert (batch.status, batch.request_counts.completed) == ("completed", 122)
    assert [(u["tenant"], u["job"], u["requests"]) for u in usage] == [("acme", "batches", 122)]


def test_lines_of_a_revoked_key_are_not_sent(start: Any, fake: Any) -> None:
    with start({"talk": fake(concurrency=1)}, pool={"batches": {"lines_at_once": 1}}) as gateway:
        key = gateway.client.post("/pool/keys", json={"tenant": "acme"}).json()
        with client_of(gateway, key["key"]) as client:
            batch = start_batch(client, line("first", "sleep 0.5"), line("second", "echo hi"))
            gateway.until(lambda: gateway.engine_stats()["requests"] == 1)
        gateway.client.delete(f"/pool/keys/{key['id']}")
        admin = {"x-sage-tenant": "acme"}
        with client_of(gateway) as client:
            client = client.with_options(default_headers=admin)
            batch = wait_for_end(client, batch.id)
            errors = content_lines(client, batch.error_file_id)

    assert batch.request_counts.completed == 1
    assert [e["response"]["status_code"] for e in errors] == [401]


def test_uploads_are_bounded_and_private(start: Any, fake: Any, tmp_path: Path) -> None:
    pool = {"batches": {"file_bytes_max": 10 << 20, "tenant_bytes_max": 15 << 20}}
    with start({"talk": fake()}, home=tmp_path, pool=pool) as gateway, client_of(gateway) as client:
        large = client.files.create(file=("large", b"x" * (10 << 20)), purpose="batch")
        for too_much in (b"x" * (11 << 20), b"x" * (6 << 20)):
            with pytest.raises(openai.APIStatusError) as caught:
                client.files.create(file=("more", too_much), purpose="batch")
            assert caught.value.status_code == 413
        kept = list((tmp_path / "data" / "gateway" / "files").iterdir())

        assert [path.name for path in kept] == [large.id]
        assert kept[0].stat().st_mode & 0o777 == 0o600
        client.files.delete(large.id)
        assert not kept[0].exists()


@pytest.mark.parametrize(
    "wanted",
    [
        {"files": {"file": ("a", b"x")}},
        {"files": {"file": ("a", b"x")}, "data": {"purpose": "fine-tune"}},
        {"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "more": "x"}},
        {"files": [("file", ("a", b"x")), ("file", ("b", b"y"))], "data": {"purpose": "batch"}},
        {"data": {"purpose": "batch", "file": "x"}},
        {"json": {"purpose": "batch"}},
        {
            "content": b"--x\r\nbroken",
            "headers": {"content-type": "multipart/form-data; boundary=x"},
        },
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
    ],
)
def test_a_malformed_upload_is_a_400(gateway: Any, wanted: dict[str, Any]) -> None:
    answer: httpx.Response = gateway.client.post("/v1/files", **wanted)

    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "more",
    [
        {"endpoint": "/v1/audio"},
        {"completion_window": "1h"},
        {"input_file_id": None},
        {"unknown": 1},
        {"metadata": {str(i): "x" for i in range(17)}},
        {"metadata": {"a": "x" * 513}},
    ],
)
def test_an_invalid_batch_is_a_400(gateway: Any, more: dict[str, Any]) -> None:
    wanted = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h", **more}

    assert gateway.client.post("/v1/batches", json=wanted).status_code == 400


def test_a_batch_resumes_after_a_restart_of_its_gateway(
    start: Any, fake: Any, tmp_path: Path
) -> None:
    pool = {"batches": {"lines_at_once": 4}}
    lines = [line(str(i), "sleep 0.05") for i in range(60)]
    with start({"talk": fake()}, home=tmp_path, pool=pool) as gateway, client_of(gateway) as client:
        batch = start_batch(client, *lines)
        wait_until(client, batch.id, lambda b: b.request_counts.completed >= 10)
    (tmp_path / "data" / "gateway" / "files" / "half-written").write_text("x")

    with start({"talk": fake()}, home=tmp_path, pool=pool) as gateway, client_of(gateway) as client:
        batch = wait_for_end(client, batch.id)
        seen = gateway.engine_stats()["requests"]
        output = content_lines(client, batch.output_file_id)

    assert Counter(one["custom_id"] for one in output) == {str(i): 1 for i in range(60)}
    assert batch.request_counts.completed == 60
    assert seen <= 50
    assert not (tmp_path / "data" / "gateway" / "files" / "half-written").exists()
