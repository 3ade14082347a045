"""The node of a join with rows that every subtask has."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sage_flink.common.validation import require
from sage_flink.flow.stateful.fields import require_path
from sage_flink.flow.stateful.joins import require_two_steps
from sage_flink.flow.step_names import check_name

#: 10 MB: the rows are in the memory of each subtask, and all of them may be in each record.
ROWS_BYTES_MAX = 10_000_000


@dataclass(frozen=True, slots=True)
class BroadcastJoin:
    """Each record of ``left`` with rows of ``right``, all of the same version until a checkpoint.

    ``right`` is a small changelog, such as rules, prompts and the names of models: an upsert, whose
    value is a map, is the row of its key, and a delete ends it. Every subtask has all rows. The
    record gets them in the field ``into``, by default called as the step:
    ``{"version": 7, "rows": {<key>: <row>, ...}}``; or, with ``field``, the row whose key that
    field of the record is: ``{"version": 7, "row": <row or None>}``.

    Changes take effect at a checkpoint, all subtasks at the same one: the records before its
    barrier have the version before, those behind it the new one, whose number is that of the
    checkpoint. So all outputs between two checkpoints are of one version, and what is committed
    with a checkpoint never mixes two. The records behind such a barrier wait until the checkpoint
    is complete; where it fails, the next one is that of the changes. After a restart the version is
    that of the restored checkpoint. Records that are processed once more may have a newer version
    than at first: their first outputs were not committed, or are replaced where a store keeps one
    row an id, and the pool does not give a changed request a recorded answer. A savepoint changes
    nothing in the running job; a job that starts from it has all changes before it. To switch back
    is to send the former rows again.

    Until the first changes take effect the version is 0 and the rows are ``initial``, by key. A row
    of ``initial`` can be replaced and deleted as any other.

    A model and its prompt are rolled out together in one row, which the spec of the call reads
    from the record, so that ``request`` makes the body of
    ``record.value["rollout"]["rows"]["ask"]``::

        versions = sage.flow.read("versions", kafka("versions", format=Json()))
        initial = {"ask": {"model": "qwen", "prompt": "In one word: "}}
        stream = requests.broadcast_join("rollout", versions, initial=initial)
        graph = stream.call("ask", Ask(), capacity=8, timeout_s=30).write("answers", answers)

    Two rows may change at two checkpoints, though they were sent together. Two changes of one row
    take effect in the order of their partition, where Flink reads the source itself, such as a
    topic; a source in Python is spread over the subtasks, and of two changes the last to arrive
    counts.

    In process there are no checkpoints: a change takes effect with the next record, the version
    counts the changes, and the sources of ``right`` are read before the others.

    A change without a key in UTF-8, or whose value is no map, or with which all rows would have
    more than 10 MB, is one dead letter and changes nothing; so is a record whose value is no map.
    A delete on the left is forwarded as it is. Event time and watermarks are those of ``left``.
    """

    name: str
    left: str
    right: str
    into: str = ""
    field: str = ""
    initial: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        require_two_steps(step, self.left, self.right)
        require(isinstance(self.into, str), step, "into", "the name of a field", self.into)
        require_path(step, "field", self.field, may_be_empty=True)
        required = "rows, such as {'ask': {'model': 'qwen'}}, that MessagePack can say"
        require(_are_rows(self.initial), step, "initial", required, self.initial)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The two steps read from."""
        return (self.left, self.right)

    @property
    def output_field(self) -> str:
        """The field of the output that holds the rows."""
        return self.into or self.name


def timed_inputs(node: Any) -> tuple[str, ...]:
    """The inputs whose watermarks are those of the step."""
    inputs: tuple[str, ...] = (node.left,) if isinstance(node, BroadcastJoin) else node.inputs
    return inputs


def _are_rows(initial: object) -> bool:
    if not isinstance(initial, Mapping):
        return False
    if not all(isinstance(k, str) and isinstance(row, Mapping) for k, row in initial.items()):
        return False
    try:
        return len(msgspec.msgpack.encode(initial)) <= ROWS_BYTES_MAX
    except Exception:  # the author's classes are asked for their fields
        return False
