"""The limit: aiohttp alone, ``capacity`` requests in flight over the same texts.

No Kafka, no Flink. ``python -m benchmark_sage.peers.raw_aiohttp WORK`` prints how many tokens
the answers had, and the seconds from the first request to the last answer, as one line of JSON.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from benchmark_sage.workload import Work, request, sum_of, texts


async def ask_all(work: Work) -> dict[str, float]:
    """Every text once; each of ``capacity`` coroutines asks one after the other.

    Raises:
        aiohttp.ClientError: no answer, or none of status 200.
        ValueError: an answer is to another text.
    """
    waiting = iter(texts(work.records, work.salt))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers(work)) as session:
        began = time.monotonic()
        asking = (ask_some(session, work, waiting) for _ in range(work.capacity))
        tokens = sum(await asyncio.gather(*asking))
        return {"tokens": tokens, "seconds": time.monotonic() - began}


async def ask_some(session: aiohttp.ClientSession, work: Work, waiting: Iterator[str]) -> int:
    """Ask texts until none waits; how many tokens the answers had."""
    tokens = 0
    for text in waiting:
        reply = await ask(session, work, text)
        content = reply["choices"][0]["message"]["content"]
        if work.model == "mock" and not content.startswith(sum_of(text)):
            raise ValueError(f"the answer is to another text: {content[:40]!r}")
        tokens += reply["usage"]["completion_tokens"]
    return tokens


async def ask(session: aiohttp.ClientSession, work: Work, text: str) -> Any:
    """The chat completion of one text."""
    url = f"{work.url}/v1/chat/completions"
    async with session.post(url, data=request(work, text)) as answer:
        answer.raise_for_status()
        return msgspec.json.decode(await answer.read())


def headers(work: Work) -> dict[str, str]:
    """Of every request."""
    key = {"Authorization": f"Bearer {work.key}"} if work.key else {}
    return {"Content-Type": "application/json", **key}


def main() -> None:
    """Ask, and tell."""
    work = msgspec.json.decode(sys.argv[1], type=Work)
    print(msgspec.json.encode(asyncio.run(ask_all(work))).decode())


if __name__ == "__main__":
    main()
