"""The effect of a fold on one record and the state of its key: pure, the same on every target."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import FailedRecord, Record
from sage_flink.flow.functions import Folding
from sage_flink.flow.graph import FlatMap
from sage_flink.flow.stateful.keyed_nodes import STATE_BYTES_MAX, Fold
from sage_flink.flow.stateful.keys import key_flaw
from sage_flink.flow.steps import author_place, catch_failure, flat_map, flat_map_encoded

T = TypeVar("T")


class Folder:
    """Runs the function of a fold; a state is bytes, or None where the key has its initial one.

    States are encoded and decoded for every record: a function that raises may have changed the one
    that it got.
    """

    def __init__(self, node: Fold) -> None:
        self._node = node
        self._initial = msgspec.msgpack.encode(node.initial)
        self._folding = Folding(node.function)
        self._flat_map = FlatMap(node.name, node.input, self._folding)

    def fold(
        self, state: bytes | None, record: Record
    ) -> tuple[bytes | None, list[Record | FailedRecord]]:
        """The new state, and the records and failures that the step makes.

        Where the record fails, the state is ``state`` and the only output is the failed record.
        """
        return self._fold(state, record, flat_map)

    def fold_encoded(
        self, state: bytes | None, record: Record
    ) -> tuple[bytes | None, list[bytes | FailedRecord]]:
        """As :meth:`fold`, with the wire forms of the records."""
        return self._fold(state, record, flat_map_encoded)

    def _fold(
        self, state: bytes | None, record: Record, make: Callable[[FlatMap, Record], list[T]]
    ) -> tuple[bytes | None, list[T | FailedRecord]]:
        if flaw := key_flaw(record):
            return state, [FailedRecord(record, self._node.name, flaw)]

        def work() -> tuple[bytes | None, list[T | FailedRecord]]:
            packed = self._initial if state is None else state
            self._folding.state = msgspec.msgpack.decode(packed)
            outputs: list[T | FailedRecord] = [*make(self._flat_map, record)]
            # Not before: outputs may be yielded, and change the state.
            new = self._pack_state(self._folding.state)
            return None if new == self._initial else new, outputs

        made = catch_failure(self._node.name, record, work, self._node.function)
        return (state, [made]) if isinstance(made, FailedRecord) else made

    def _pack_state(self, state: Any) -> bytes:
        try:
            packed = msgspec.msgpack.encode(state)
        except Exception as error:  # the author's classes are asked for their fields
            raise Rejected(
                f"the state cannot be encoded: {type(error).__name__}: {error}"
                f"{author_place(self._node.function)}"
            ) from error
        if len(packed) > STATE_BYTES_MAX:
            raise Rejected(
                f"the state has {len(packed)} bytes, at most {STATE_BYTES_MAX} are kept; keep "
                "large contents in a store, and their addresses in the state"
                f"{author_place(self._node.function)}"
            )
        return packed
