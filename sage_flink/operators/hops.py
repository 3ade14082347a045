"""Loops through a topic: each return of a record is counted, and one too many is refused.

A loop is a topic that a pipeline both reads and writes: an agent that asks until its answer is good
enough, a crawler that follows links. It has no state of its own in Flink, so checkpoints and
savepoints never wait for it; what is in it at a crash is in the topic.

>>> import sage_flink as sage
>>> from sage_connectors import kafka
>>> from sage_connectors.formats import Json
>>> tasks = kafka("tasks", format=Json())
>>> asked = sage.flow.read("tasks", tasks).flat_map("hops", HopLimit(5))
>>> made = asked.map("step", lambda record: record.value | {"n": record.value["n"] + 1})
>>> ways = made.split("ready", {"yes": lambda record: record.value["n"] > 3}, rest="no")
>>> results = ways["yes"].write("results", kafka("results", format=Json()))
>>> again = ways["no"].write("again", tasks)
>>> graph = sage.flow.pipeline(results, again).dead_letters_to(kafka("tasks.failed"))
"""

from dataclasses import dataclass
from typing import ClassVar

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record, derived_id
from sage_flink.common.validation import require_whole_number

#: How often a record has come back, in decimal digits.
HEADER = "sage-hops"


@dataclass(frozen=True, slots=True)
class HopLimit:
    """For ``flat_map``, first in a loop: at most ``hops_max`` passes of a record and its children.

    The count travels in the record's header ``sage-hops``, which maps, calls and topics keep. From
    the second pass on the record has an id of that pass, the same in each replay: where ids come
    from the value, a call would otherwise get the recorded answer of the pass before.
    """

    hops_max: int
    supports_deletes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_whole_number("hop limit", "hops_max", self.hops_max)

    def __call__(self, record: Record) -> tuple[Record, ...]:
        """The record, with its passes counted.

        Raises:
            Rejected: it has passed ``hops_max`` times, or its header is not a count.
        """
        hops = _hops(record.headers.get(HEADER, b"0"))
        if hops >= self.hops_max:
            raise Rejected(
                f"the record has passed {hops} times, at most {self.hops_max} are allowed"
            )
        headers = {**record.headers, HEADER: str(hops + 1).encode()}
        id_ = derived_id(record.id, HEADER, hops) if hops else record.id
        return (record.replace(id=id_, headers=headers),)


def _hops(header: bytes) -> int:
    if not header.isdigit() or len(header) > 9:
        raise Rejected(f"the header {HEADER} must be a count, got {header!r:.40}")
    return int(header)
