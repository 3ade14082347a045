"""Asks the gateway's ``rag`` model a question and prints the streamed answer with its sources."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from sage_connectors.http import pool_key, pool_tls
from sage_flink.common import PoolError, PoolTimeout, Settings
from sage_flink.common.connections import GatewayConnection
from sage_flink.common.connections_file import connection_to
from sage_flink.common.http_clients import httpx_options
from sage_flink.common.openai import event_of, pool_error


def ask(question: str, settings: Settings, console: Console) -> str:
    """Print the streamed answer and its sources, and return the answer.

    Raises:
        PoolError: the gateway replied with an error, or does not reply.
    """
    console.print(Text(question, "bold"))
    text: list[str] = []
    sources: list[dict[str, Any]] = []

    def pieces() -> Iterator[str]:
        for event in stream(question, settings):
            sources.extend(event.get("sources") or ())
            for choice in event.get("choices", ()):
                text.append(choice.get("delta", {}).get("content") or "")
                yield text[-1]

    for piece in wrap_words(pieces(), console.width):
        console.out(piece, end="", highlight=False)
    for source in sources:
        line = Text(f"  {source['score']:.2f}  {source['doc']}  {source['title']}", "dim")
        console.print(line, overflow="ellipsis", no_wrap=True)
    return "".join(text)


def wrap_words(pieces: Iterable[str], width: int) -> Iterator[str]:
    """The streamed text, with a line break before each word that would reach ``width``.

    >>> "".join(wrap_words(["one t", "wo three"], 9))
    'one two \\nthree\\n'
    """
    column, word = 0, ""
    for character in itertools.chain(itertools.chain.from_iterable(pieces), "\n"):
        if not character.isspace():
            word += character
            continue
        if column and column + len(word) >= width:
            yield "\n"
            column = 0
        yield word + character
        column, word = (0 if character == "\n" else column + len(word) + 1), ""


def stream(question: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """The events of one streamed answer."""
    body = {
        "model": "rag",
        "stream": True,
        "messages": [{"role": "user", "content": question}],
    }
    pool = connection_to(settings.gateway_url, GatewayConnection)
    headers = {"Authorization": f"Bearer {pool_key(pool)}"}
    url = f"{settings.gateway_url}/v1/chat/completions"
    options = {"timeout": 300, **httpx_options(url, pool_tls(pool))}
    try:
        with httpx.stream("POST", url, json=body, headers=headers, **options) as response:
            status = response.status_code
            if status != 200:
                raise pool_error(response.read(), status)
            for line in response.iter_lines():
                if event := event_of(line.encode()):
                    yield event
    except httpx.TimeoutException as error:
        raise PoolTimeout(f"{url}: no answer within 300 s; see `sage logs gateway`") from error
    except httpx.HTTPError as error:
        raise PoolError(f"{url} does not answer ({error}); see `sage ps`") from error
