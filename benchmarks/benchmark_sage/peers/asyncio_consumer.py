"""Plain consumer: aiokafka, a task per message, auto-commit; the obvious program without Flink.

Set up as in aiokafka's documentation (``enable_auto_commit`` is its default), at most ``capacity``
calls in flight. It commits messages after reading, answered or not: a crash loses the unanswered.
Ends after ``records`` answers, or on SIGTERM. ``python -m benchmark_sage.peers.asyncio_consumer
WORK``. Source: https://aiokafka.readthedocs.io/en/stable/consumer.html
"""

import asyncio
import signal
import sys

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmark_sage.peers.raw_aiohttp import ask, headers
from benchmark_sage.workload import Work


async def consume(work: Work) -> None:
    """Answer the topic's messages until cancelled."""
    consumer = AIOKafkaConsumer(
        work.topic,
        bootstrap_servers=work.servers,
        group_id=work.name,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=work.servers)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        consumer,
        producer,
        aiohttp.ClientSession(connector=connector, headers=headers(work)) as session,
        asyncio.TaskGroup() as calls,
    ):
        free, read = asyncio.Semaphore(work.capacity), 0

        async def call(value: bytes) -> None:
            try:
                text = msgspec.json.decode(value)["text"]
                reply = await ask(session, work, text)
                content = reply["choices"][0]["message"]["content"]
                answer = msgspec.json.encode({"text": text, "answer": content})
                await producer.send(work.answers, answer)
            finally:
                free.release()

        async for message in consumer:
            await free.acquire()
            calls.create_task(call(message.value))
            read += 1
            if read == work.records:
                break


async def main() -> None:
    """Consume, until the end or SIGTERM."""
    consuming = asyncio.ensure_future(consume(msgspec.json.decode(sys.argv[1], type=Work)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, consuming.cancel)
    await asyncio.wait([consuming])
    if not consuming.cancelled():
        consuming.result()


if __name__ == "__main__":
    asyncio.run(main())
