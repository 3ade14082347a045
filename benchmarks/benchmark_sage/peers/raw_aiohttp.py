"""Limit of B2: aiohttp alone, ``capacity`` requests in flight over the same texts.

No Kafka, no Flink. ``python -m benchmark_sage.peers.raw_aiohttp WORK`` prints one line of JSON: the
tokens of the answers, and the seconds from the first request to the last answer.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from benchmark_sage.workload import Work, checksum, request, texts


async def ask_all(work: Work) -> dict[str, float]:
    """Call the engine once for each text, with ``capacity`` coroutines.

    Raises:
        aiohttp.ClientError: no answer, or an answer with another status than 200.
        ValueError: an answer belongs to another text.
    """
    waiting = iter(texts(work.records, work.salt))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers(work)) as session:
        began = time.monotonic()
        asking = (ask_some(session, work, waiting) for _ in range(work.capacity))
        tokens = sum(await asyncio.gather(*asking))
        return {"tokens": tokens, "seconds": time.monotonic() - began}


async def ask_some(session: aiohttp.ClientSession, work: Work, waiting: Iterator[str]) -> int:
    """Call the engine for the waiting texts, and return the tokens of the answers."""
    tokens = 0
    for text in waiting:
        reply = await ask(session, work, text)
        content = reply["choices"][0]["message"]["content"]
        if work.model == "mock" and not content.startswith(checksum(text)):
            raise ValueError(f"the answer belongs to another text: {content[:40]!r}")
        tokens += reply["usage"]["completion_tokens"]
    return tokens


async def ask(session: aiohttp.ClientSession, work: Work, text: str) -> Any:
    """The chat completion of one text."""
    url = f"{work.url}/v1/chat/completions"
    async with session.post(url, data=request(work, text)) as answer:
        answer.raise_for_status()
        return msgspec.json.decode(await answer.read())


def headers(work: Work) -> dict[str, str]:
    """The headers of every request."""
    key = {"Authorization": f"Bearer {work.key}"} if work.key else {}
    return {"Content-Type": "application/json", **key}


def main() -> None:
    """Run the workload of the command line and print the figures."""
    work = msgspec.json.decode(sys.argv[1], type=Work)
    print(msgspec.json.encode(asyncio.run(ask_all(work))).decode())


if __name__ == "__main__":
    main()
