"""Open loop on Kafka: sends records at their due times and measures when their answers arrive."""

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmark_sage.workload import Work, message

#: How long the last answers may take before they count as lost.
GRACE_S = 15.0


class Trickle:
    """Producer and consumer of one side's topics; a text's latency ends when its answer is read."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._producer = AIOKafkaProducer(bootstrap_servers=work.servers, acks=1)
        # Without a group it commits no offsets.
        self._consumer = AIOKafkaConsumer(
            work.answers, bootstrap_servers=work.servers, auto_offset_reset="earliest"
        )
        self._answered: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await self._consumer.stop()
        await self._producer.stop()

    async def warm_up(self, texts: Sequence[str], timeout_s: float) -> None:
        """Send these texts and return when all are answered.

        Raises:
            TimeoutError: an answer is missing after ``timeout_s`` seconds.
        """
        for text in texts:
            await self._producer.send_and_wait(self._work.topic, message(text))
        if not await self._all(texts, timeout_s):
            raise TimeoutError(f"{self._work.name}: not warm after {timeout_s:g} s")

    async def send_at_rate(self, texts: Sequence[str], rate: float) -> list[float | None]:
        """Milliseconds from each text's due time to its answer; None for a missing answer."""
        began = time.monotonic() + 0.1
        due = {text: began + number / rate for number, text in enumerate(texts)}
        for text, at in due.items():
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            await self._producer.send(self._work.topic, message(text))
        await self._all(texts, GRACE_S)
        return [
            (self._answered[text] - at) * 1000 if text in self._answered else None
            for text, at in due.items()
        ]

    async def _read(self) -> None:
        async for record in self._consumer:
            text = msgspec.json.decode(record.value)["text"]
            self._answered.setdefault(text, time.monotonic())

    async def _all(self, texts: Sequence[str], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not all(text in self._answered for text in texts):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True
