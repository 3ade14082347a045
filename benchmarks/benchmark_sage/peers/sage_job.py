"""Side under test: the same work as a sage pipeline with its defaults."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

import sage_flink as sage
from benchmark_sage.workload import Work
from sage_connectors import Json, kafka
from sage_connectors.kafka import Delivery
from sage_flink.common import Record
from sage_flink.flow import FlinkOptions

NO_CHECKPOINTS_S = 86_400.0


@dataclass(frozen=True, slots=True)
class AskQuestion:
    """Decodes a message to a record with its chat messages."""

    def __call__(self, record: Record) -> Iterable[Record]:
        """One chat request."""
        text = msgspec.json.decode(record.value)["text"]
        value = {"text": text, "messages": [{"role": "user", "content": text}]}
        return (record.replace(value=value),)


@dataclass(frozen=True, slots=True)
class EncodeAnswer:
    """Encodes an answered record as the message of its answer."""

    def __call__(self, record: Record) -> Iterable[Record]:
        """One answer."""
        page = {name: record.value[name] for name in ("text", "answer", "usage")}
        return (record.replace(value=msgspec.json.encode(page)),)


def build(work: Work) -> sage.flow.Graph:
    """texts -> ask -> answers."""
    delivery: Delivery = "exactly_once" if work.checkpoint_s else "at_least_once"
    texts = kafka(work.topic, work.servers, group=work.name, bounded=work.records > 0)
    return (
        sage.flow.read("texts", texts)
        .flat_map("ask", AskQuestion())
        .call(
            "answer",
            sage.chat(model=work.model, tokens_max=work.tokens_max),
            capacity=work.capacity,
            timeout_s=60,
        )
        .flat_map("encode", EncodeAnswer())
        .write("answers", kafka(work.answers, work.servers, delivery=delivery))
        .dead_letters_to(kafka(work.dead_letters, work.servers, delivery=delivery))
    )


def build_native(work: Work) -> sage.flow.Graph:
    """The same with formats and a prompt in place of functions: no step runs in Python."""
    delivery: Delivery = "exactly_once" if work.checkpoint_s else "at_least_once"
    texts = kafka(
        work.topic, work.servers, group=work.name, bounded=work.records > 0, format=Json()
    )
    answers = kafka(work.answers, work.servers, delivery=delivery, format=Json())
    chat = sage.chat(model=work.model, tokens_max=work.tokens_max, prompt="{text}")
    return (
        sage.flow.read("texts", texts)
        .call("answer", chat, capacity=work.capacity, timeout_s=60)
        .write("answers", answers)
        .dead_letters_to(kafka(work.dead_letters, work.servers, delivery=delivery))
    )


def options(work: Work) -> FlinkOptions:
    """Sage's defaults, except the checkpoint interval and, if the work sets it, the bundle time."""
    options = FlinkOptions(checkpoint_interval_s=work.checkpoint_s or NO_CHECKPOINTS_S)
    return replace(options, bundle_s=work.bundle_s) if work.bundle_s else options
