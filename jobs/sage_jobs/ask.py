"""A question to the gateway's ``rag`` model, its answer as it is written, and its sources."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console

from sage_flink.common import PoolError, PoolTimeout, Settings


def ask(question: str, settings: Settings, console: Console) -> str:
    """Print the streamed answer and its sources; the answer comes back.

    Raises:
        PoolError: the gateway answered with an error, or does not answer.
    """
    console.print(f"[bold]{question}[/]")
    text: list[str] = []
    sources: list[dict[str, Any]] = []
    for event in stream(question, settings):
        for choice in event.get("choices", ()):
            piece = choice.get("delta", {}).get("content") or ""
            text.append(piece)
            console.print(piece, end="", markup=False)
        sources = event.get("sources") or sources
    console.print()
    for source in sources:
        console.print(f"  [dim]{source['score']:.2f}  {source['doc']}  {source['title']}[/]")
    return "".join(text)


def stream(question: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """The events of one streamed answer."""
    body = {
        "model": "rag",
        "stream": True,
        "messages": [{"role": "user", "content": question}],
    }
    headers = {"Authorization": f"Bearer {settings.secret('gateway')}"}
    url = f"{settings.gateway_url}/v1/chat/completions"
    try:
        with httpx.stream("POST", url, json=body, headers=headers, timeout=300) as response:
            if response.status_code != 200:
                raise PoolError(_message(response.read()), status=response.status_code)
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise PoolError(event["error"]["message"])
                    yield event
    except httpx.TimeoutException as error:
        raise PoolTimeout(f"{url}: no answer within 300 s; see `sage logs gateway`") from error
    except httpx.HTTPError as error:
        raise PoolError(f"{url} does not answer ({error}); see `sage ps`") from error


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:300]
