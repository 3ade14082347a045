"""Batches through OpenAI's own client; the engine answers what each line asks for."""

from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_client import (
    CHAT,
    content_lines,
    jsonl,
    line,
    start_batch,
    upload,
    wait_for_end,
    wait_until,
)
from gateway_client import client_of, create_key


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
    with start({"talk": fake()}, pool=pool) as gateway, client_of(gateway.url) as client:
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
    mine, other = (client_of(gateway.url, create_key(gateway, t)) for t in ("acme", "umbrella"))
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


def test_a_batch_at_its_rate_limit_waits_and_is_charged_to_its_tenant(
    start: Any, fake: Any
) -> None:
    with start({"talk": fake()}) as gateway:
        # two a second once the limit is used up
        key = create_key(gateway, "acme", requests_per_minute=120)
        gateway.until(gateway.healthy)
        with client_of(gateway.url, key) as client:
            batch = start_batch(client, *(line(str(i), "echo hi") for i in range(122)))
            batch = wait_for_end(client, batch.id)
            usage = gateway.client.get("/v1/usage").json()["data"]

    assert (batch.status, batch.request_counts.completed) == ("completed", 122)
    assert [(u["tenant"], u["job"], u["requests"]) for u in usage] == [("acme", "batches", 122)]


def test_lines_of_a_revoked_key_are_not_sent(start: Any, fake: Any) -> None:
    with start({"talk": fake(concurrency=1)}, pool={"batches": {"lines_at_once": 1}}) as gateway:
        key = gateway.client.post("/pool/keys", json={"tenant": "acme"}).json()
        with client_of(gateway.url, key["key"]) as client:
            batch = start_batch(client, line("first", "sleep 0.5"), line("second", "echo hi"))
            gateway.until(lambda: gateway.engine_stats()["requests"] == 1)
        gateway.client.delete(f"/pool/keys/{key['id']}")
        admin = {"x-sage-tenant": "acme"}
        with client_of(gateway.url) as client:
            client = client.with_options(default_headers=admin)
            batch = wait_for_end(client, batch.id)
            errors = content_lines(client, batch.error_file_id)

    assert batch.request_counts.completed == 1
    assert [e["response"]["status_code"] for e in errors] == [401]


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
    with (
        start({"talk": fake()}, home=tmp_path, pool=pool) as gateway,
        client_of(gateway.url) as client,
    ):
        batch = start_batch(client, *lines)
        wait_until(client, batch.id, lambda b: b.request_counts.completed >= 10)
    (tmp_path / "data" / "gateway" / "files" / "half-written").write_text("x")

    with (
        start({"talk": fake()}, home=tmp_path, pool=pool) as gateway,
        client_of(gateway.url) as client,
    ):
        batch = wait_for_end(client, batch.id)
        seen = gateway.engine_stats()["requests"]
        output = content_lines(client, batch.output_file_id)

    assert Counter(one["custom_id"] for one in output) == {str(i): 1 for i in range(60)}
    assert batch.request_counts.completed == 60
    assert seen <= 50
    assert not (tmp_path / "data" / "gateway" / "files" / "half-written").exists()
