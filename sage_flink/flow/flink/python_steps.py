"""The steps of a stage that run an author's code: a flat_map, and both ends of a call."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
from pyflink.datastream.functions import RuntimeContext
from typing_extensions import override

from sage_flink.common.records import FailedRecord, Record, decode
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.call_requests import call_request
from sage_flink.flow.flink.stage import Item, Step
from sage_flink.flow.graph import Call, FlatMap
from sage_flink.flow.lifecycle import close, open_copy
from sage_flink.flow.ports import OpenContext
from sage_flink.flow.steps import (
    call_answer,
    call_answer_encoded,
    catch_failure,
    flat_map,
    flat_map_encoded,
)


class FunctionStep(Step):
    """A step with an author's function, which each subtask opens and closes."""

    node: FlatMap | MapBatches

    @override
    def open(self, context: RuntimeContext, job: str) -> None:
        opened: Any = open_copy(self.node.function, open_context(context, job, self.node.name))
        self.node = replace(self.node, function=opened)

    @override
    def close(self) -> None:
        close(self.node.function)


class FlatMapStep(FunctionStep):
    """Record -> the records that the function makes from it."""

    node: FlatMap

    def __init__(self, node: FlatMap) -> None:
        super().__init__(node.name, (node.name, "read", "emitted"))
        self.node = node

    @override
    def outcomes(self, item: Record) -> Iterator[Item | FailedRecord]:
        node, make = self.node, flat_map_encoded if self.is_last else flat_map
        made = catch_failure(self.name, item, lambda: make(node, item), node.function)
        yield from (made,) if isinstance(made, FailedRecord) else made


class _CallEnd(Step):
    """A step that runs one of the two methods of a call's spec."""

    def __init__(self, node: Call, name: str, counts_as: tuple[str, str, str]) -> None:
        super().__init__(name, counts_as)
        self.node, self.spec = node, node.spec

    @override
    def open(self, context: RuntimeContext, job: str) -> None:
        self.spec = open_copy(self.node.spec, open_context(context, job, self.node.name))

    @override
    def close(self) -> None:
        close(self.spec)


class RequestStep(_CallEnd):
    """Record -> [record, request id, body, headers], the input of the native call.

    An empty body makes no call: the native operator emits the record in its place, unchanged.
    """

    def __init__(self, node: Call, job: str) -> None:
        super().__init__(node, f"{node.name}.request", (node.name, "read", "asked"))
        self.job = job

    @override
    def outcomes(self, item: Record) -> Iterator[Item | FailedRecord]:
        job, node, request = self.job, self.node, self.spec.request
        yield catch_failure(
            node.name, item, lambda: call_request(job, node, item, request), request
        )


class _NativeResult(msgspec.Struct, array_like=True):
    """The native call's result: successful exactly when ``reason`` is empty; status 0: no call."""

    record: bytes
    status: int
    attempts: int
    reason: str
    body: bytes


class AnswerStep(_CallEnd):
    """Result of the native call -> the record with its result, or the failed record."""

    takes_records = False

    def __init__(self, node: Call) -> None:
        super().__init__(node, f"{node.name}.answer", (node.name, "answered", "emitted"))

    @override
    def outcomes(self, item: bytes) -> Iterator[Item | FailedRecord]:
        result = msgspec.msgpack.decode(item, type=_NativeResult)
        record = decode(result.record)
        if result.reason:
            yield FailedRecord(record, self.node.name, result.reason, result.attempts)
        elif not result.status:
            yield result.record if self.is_last else record  # its body was empty
        else:
            self.merged += not result.attempts
            node, answer = self.node, self.spec.answer
            make = call_answer_encoded if self.is_last else call_answer
            made = catch_failure(
                node.name, record, lambda: make(node, answer, record, result.body), answer
            )
            if isinstance(made, FailedRecord):
                made = msgspec.structs.replace(made, attempts=result.attempts)
            yield made

    @override
    def refusal(self, element: bytes, reason: str) -> FailedRecord:
        result = msgspec.msgpack.decode(element, type=_NativeResult)
        return FailedRecord(decode(result.record), self.node.name, reason, result.attempts)


def open_context(context: RuntimeContext, job: str, step: str) -> OpenContext:
    """What an author's operator is opened with on this worker."""
    subtask = context.get_index_of_this_subtask()
    return OpenContext(job, step, subtask, context.get_number_of_parallel_subtasks())
