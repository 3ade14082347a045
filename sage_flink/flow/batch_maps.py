"""The node of a function that takes whole batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sage_flink.common.errors import PipelineError
from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.author_code import asynchronous, place_of
from sage_flink.flow.call_options import is_above_zero
from sage_flink.flow.step_names import check_name

#: Records of a batch -> for each, in order, its value, a Record, or a Refusal.
BatchFunction = Callable[[Sequence[Record]], Sequence[Any]]
#: A batch is complete at this size too, whatever the number of its records.
BYTES_MAX = 4_000_000


@dataclass(frozen=True, slots=True)
class MapBatches:
    """``function(records)`` returns one output for each record of a batch, in the same order.

    An output is the record's new value (it keeps its id), a Record, or a Refusal. A batch is
    complete at ``items_max`` records, 4 MB, or when its oldest record has waited ``linger_s``
    seconds; on Flink records that wait are state of a native operator. Deletes pass in their place,
    and the function does not see them. Where the function raises, the batch is halved until the
    record is alone at which it does: that one is a dead letter. So it runs again for others of its
    batch, and must have no other effect. While it raises
    :class:`~sage_flink.common.Retryable`, such as a store that is down, the step waits and tries
    again. Its output has no event time: put ``event_time`` behind it.
    """

    name: str
    input: str
    function: BatchFunction
    items_max: int = 100
    linger_s: float = 0.01

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        known = callable(self.function) and not isinstance(self.function, type)
        required = "a callable taking a list of Records"
        require(known, step, "function", required, self.function)
        if kind := asynchronous(self.function):
            raise PipelineError(
                f"{step}: function must be a plain function, got {kind}{place_of(self.function)}"
            )
        require_whole_number(step, "items_max", self.items_max)
        above = is_above_zero(self.linger_s)
        require(above, step, "linger_s", "more than 0 seconds", self.linger_s)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)
