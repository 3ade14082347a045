"""Files through OpenAI's own client: stored, listed, bounded, and refused."""

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from batch_client import jsonl, line, upload
from gateway_client import client_of


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


def test_uploads_are_bounded_and_private(start: Any, fake: Any, tmp_path: Path) -> None:
    pool = {"batches": {"file_bytes_max": 10 << 20, "tenant_bytes_max": 15 << 20}}
    with (
        start({"talk": fake()}, home=tmp_path, pool=pool) as gateway,
        client_of(gateway.url) as client,
    ):
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
