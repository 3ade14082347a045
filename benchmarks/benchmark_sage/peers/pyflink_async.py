"""PyFlink's own async operator at its defaults: Kafka -> AsyncDataStream -> Kafka.

Written like PyFlink's example (``pyflink/examples/datastream/asyncio``: an AsyncFunction with
``open``, ``async_invoke`` that returns a list, ``timeout`` with a default value, 10 seconds); every
``python.fn-execution.*`` setting is PyFlink's default. One difference: the first call creates the
HTTP client, because ``open`` runs before the event loop exists.

``flink run -py pyflink_async.py --work WORK --connector JAR``. This file does not import sage.
"""

import argparse
import json
from typing import Any

import aiohttp
from pyflink.common import Time, Types, WatermarkStrategy
from pyflink.common.serialization import SimpleStringSchema
from pyflink.datastream import AsyncDataStream, AsyncFunction, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)


class AskFunction(AsyncFunction):  # type: ignore[misc]
    """One chat call a message."""

    def __init__(self, work: dict[str, Any]) -> None:
        self.work = work

    def open(self, runtime_context: Any) -> None:
        """Leave the session to the first call: the event loop does not exist yet."""
        self.session: aiohttp.ClientSession | None = None

    async def async_invoke(self, value: str) -> list[str]:
        """The answer, as a list of one."""
        if self.session is None:
            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        text = json.loads(value)["text"]
        body = {
            "model": self.work["model"],
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.work["tokens_max"],
            "temperature": 0.0,
            "seed": 0,
        }
        url = f"{self.work['url']}/v1/chat/completions"
        async with self.session.post(url, json=body) as answer:
            answer.raise_for_status()
            reply = await answer.json()
        content = reply["choices"][0]["message"]["content"]
        return [json.dumps({"text": text, "answer": content})]

    def timeout(self, value: str) -> list[str]:
        """A default value, as in the example."""
        return [json.dumps({"text": json.loads(value)["text"], "answer": ""})]


def source(work: dict[str, Any]) -> KafkaSource:
    """The messages: the present ones, or unbounded if ``records`` is 0."""
    builder = (
        KafkaSource.builder()
        .set_bootstrap_servers(work["servers"])
        .set_topics(f"{work['name']}.texts")
        .set_group_id(work["name"])
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(SimpleStringSchema())
    )
    if work["records"]:
        builder = builder.set_bounded(KafkaOffsetsInitializer.latest())
    return builder.build()


def sink(work: dict[str, Any]) -> KafkaSink:
    """The answers, exactly once if checkpoints are on."""
    guarantee = DeliveryGuarantee.AT_LEAST_ONCE
    if work["checkpoint_s"]:
        guarantee = DeliveryGuarantee.EXACTLY_ONCE
    return (
        KafkaSink.builder()
        .set_bootstrap_servers(work["servers"])
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(f"{work['name']}.answers")
            .set_value_serialization_schema(SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(guarantee)
        .set_transactional_id_prefix(work["name"])
        .set_property("transaction.timeout.ms", "600000")
        .build()
    )


def main() -> None:
    """Build the job and start it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--connector", required=True)
    arguments = parser.parse_args()
    work = json.loads(arguments.work)
    env = StreamExecutionEnvironment.get_execution_environment()
    env.add_jars(arguments.connector)
    env.set_parallelism(1)
    if work["checkpoint_s"]:
        env.enable_checkpointing(round(work["checkpoint_s"] * 1000))
    asked = env.from_source(source(work), WatermarkStrategy.no_watermarks(), "texts")
    answered = AsyncDataStream.unordered_wait(
        asked, AskFunction(work), Time.seconds(10), work["capacity"], Types.STRING()
    )
    answered.sink_to(sink(work))
    env.execute(work["name"])


if __name__ == "__main__":
    main()
