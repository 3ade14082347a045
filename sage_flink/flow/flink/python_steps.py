"""The steps of a stage that run an author's code: a flat_map, and both ends of a call."""

from collections.abc import Iterator

import msgspec

from sage_flink.common.records import Failed, Record, decode, encode
from sage_flink.flow.flink.stage import Item, Step
from sage_flink.flow.graph import Call, FlatMap
from sage_flink.flow.steps import call_headers, flat_map, guarded, question


class FlatMapStep(Step):
    """Record -> the records that the function makes of it."""

    def __init__(self, node: FlatMap) -> None:
        super().__init__(node.name, (node.name, "read", "emitted"))
        self.node = node

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The function's records, or the failure."""
        made = guarded(self.name, item, lambda: flat_map(self.node, item))
        yield from (made,) if isinstance(made, Failed) else made


class RequestStep(Step):
    """Record -> [record, request id, body, headers], as the native call takes it.

    An empty body is nothing to ask: the call answers it at once, in its place, after no attempt.
    """

    def __init__(self, node: Call, job: str) -> None:
        super().__init__(f"{node.name}.request", (node.name, "read", "asked"))
        self.node, self.job = node, job

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The question to the pool, or the failure."""
        body = guarded(self.node.name, item, lambda: question(item, self.node.spec.request))
        if isinstance(body, Failed):
            yield body
        else:
            headers = call_headers(self.job, self.node, item)
            asked = (encode(item), headers["x-request-id"], body, headers)
            yield msgspec.msgpack.encode(asked)


class _Answered(msgspec.Struct, array_like=True):
    """The native call's envelope: ok exactly when ``reason`` is empty, status 0 then: not asked."""

    record: bytes
    status: int
    attempts: int
    reason: str
    body: bytes


class AnswerStep(Step):
    """Envelope -> the record with its answer, or a failure."""

    takes_records = False

    def __init__(self, node: Call) -> None:
        super().__init__(f"{node.name}.answer", (node.name, "answered", "emitted"))
        self.node = node

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """The record that the spec makes of the answer, or the failure."""
        answer = msgspec.msgpack.decode(item, type=_Answered)
        record = decode(answer.record)
        if answer.reason:
            yield Failed.of(record, self.node.name, answer.reason, answer.attempts)
        elif not answer.status:
            yield record  # it had nothing to ask, and passes as it came
        else:
            spec = self.node.spec
            yield guarded(self.node.name, record, lambda: spec.answer(record, answer.body))
