"""Files of requests and batches of them through OpenAI's own client."""

import json
import time
from collections.abc import Callable
from typing import Any

import openai

CHAT = "/v1/chat/completions"
OPEN = {"validating", "in_progress", "finalizing", "cancelling"}


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


def upload(client: openai.OpenAI, content: bytes) -> str:
    return client.files.create(file=("in.jsonl", content), purpose="batch").id


def start_batch(client: openai.OpenAI, *lines: dict[str, Any], **more: Any) -> Any:
    file_id = upload(client, jsonl(*lines))
    return client.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h", **more
    )


def wait_for_end(client: openai.OpenAI, batch_id: str, seconds: float = 20) -> Any:
    return wait_until(client, batch_id, lambda b: b.status not in OPEN, seconds)


def wait_until(
    client: openai.OpenAI, batch_id: str, wanted: Callable[[Any], bool], seconds: float = 20
) -> Any:
    end = time.monotonic() + seconds
    while not wanted(batch := client.batches.retrieve(batch_id)):
        assert time.monotonic() < end, batch
        time.sleep(0.05)
    return batch
