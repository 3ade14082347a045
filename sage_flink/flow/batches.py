"""The effect of a function of batches on one batch: pure, the same on every target."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sage_flink.common.errors import Rejected, Retryable
from sage_flink.common.records import FailedRecord, Record, Refusal
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.steps import catch_failure, encode_made

T = TypeVar("T")


def map_batch(node: MapBatches, records: Sequence[Record]) -> list[Record | FailedRecord]:
    """What the step makes of a batch: one record or failure for each, in order.

    Raises:
        Retryable: the function cannot work now; the same batch may succeed later.
    """

    def same(record: Record) -> Record:
        encode_made(record, node.function)
        return record

    return _in_places(node, records, same)


def map_batch_encoded(node: MapBatches, records: Sequence[Record]) -> list[bytes | FailedRecord]:
    """The wire forms of the records of :func:`map_batch`, which raises as this does."""
    return _in_places(node, records, lambda record: encode_made(record, node.function))


def _in_places(
    node: MapBatches, records: Sequence[Record], finish: Callable[[Record], T]
) -> list[T | FailedRecord]:
    """The outputs of the upserts, and between them the deletes, which the function does not see."""
    upserts = [record for record in records if record.kind == "upsert"]
    made = iter(_map(node, upserts, finish))
    return [finish(record) if record.kind == "delete" else next(made) for record in records]


def _map(
    node: MapBatches, records: list[Record], finish: Callable[[Record], T]
) -> list[T | FailedRecord]:
    """The outputs; where the function raises, the batch is halved until that record is alone."""

    def work() -> list[T | FailedRecord] | Retryable:
        try:
            return _outputs(node, records, finish)
        except Retryable as error:
            return error

    if not records:
        return []
    made = catch_failure(node.name, records[0], work, node.function)
    if isinstance(made, Retryable):
        raise made
    if not isinstance(made, FailedRecord):
        return made
    if len(records) == 1:
        return [made]
    middle = len(records) // 2
    return _map(node, records[:middle], finish) + _map(node, records[middle:], finish)


def _outputs(
    node: MapBatches, records: list[Record], finish: Callable[[Record], T]
) -> list[T | FailedRecord]:
    made = list(node.function(records))
    if len(made) != len(records):
        raise Rejected(f"the function returned {len(made)} outputs for {len(records)} records")
    return [_output(node, *pair, finish) for pair in zip(records, made, strict=True)]


def _output(
    node: MapBatches, record: Record, made: Any, finish: Callable[[Record], T]
) -> T | FailedRecord:
    try:
        if isinstance(made, Refusal):
            return FailedRecord(record, node.name, str(made.reason))
        changed = made if isinstance(made, Record) else record.replace(value=made)
        if changed.kind == "delete":
            raise Rejected("the function returned a delete; make it in a flat_map")
        return finish(changed)
    except Rejected as flaw:
        return FailedRecord(record, node.name, str(flaw))
