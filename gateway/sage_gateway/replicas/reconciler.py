"""The reconciler: which replicas to start and which to drain, so that a model has those wanted.

Pure, and called again after every change; what it returned and was done, it does not return again.

A replica that is being replaced does not count as one of those wanted, but takes requests until
enough others are ready: its successor is ready before it is drained. **Queued requests always have
a replica**: the last ready one stays until the queue is empty, even with no replica wanted.
"""

from collections.abc import Collection, Sequence
from itertools import islice
from typing import NamedTuple

from sage_gateway.replicas.lifecycle import LIVE, ReplicaState

#: The order in which surplus replicas are drained: least useful first.
_DRAIN_ORDER = {ReplicaState.FAILED: 0, ReplicaState.STARTING: 1, ReplicaState.READY: 2}


class SlotView(NamedTuple):
    """A replica slot as the reconciler sees it."""

    slot_index: int
    state: ReplicaState
    leaving: bool = False


class ReconcileActions(NamedTuple):
    """Free indexes where a replica is to be started, and indexes of replicas to be drained."""

    start: tuple[int, ...] = ()
    drain: tuple[int, ...] = ()


def reconcile(slots: Sequence[SlotView], wanted: int, *, waiting: bool) -> ReconcileActions:
    """The replicas to start and to drain; ``waiting``: whether requests wait for the model."""
    live = [slot for slot in slots if slot.state in LIVE]
    staying = [slot for slot in live if not slot.leaving]
    surplus = sorted(staying, key=_drain_rank)[: max(0, len(staying) - wanted)]
    drain = surplus + _dispensable([slot for slot in live if slot not in surplus], wanted)
    ready = [slot for slot in live if slot.state is ReplicaState.READY]
    if waiting and ready and all(slot in drain for slot in ready):
        drain.remove(ready[0])
    start = _free_indexes({slot.slot_index for slot in slots}, max(0, wanted - len(staying)))
    return ReconcileActions(start, tuple(slot.slot_index for slot in drain))


def _drain_rank(slot: SlotView) -> tuple[int, int]:
    return _DRAIN_ORDER[slot.state], -slot.slot_index


def _dispensable(live: Sequence[SlotView], wanted: int) -> list[SlotView]:
    """The leaving replicas that are not needed: not ready, or more are ready than wanted."""
    spare = max(0, sum(slot.state is ReplicaState.READY for slot in live) - wanted)
    leaving = [slot for slot in live if slot.leaving]
    idle = [slot for slot in leaving if slot.state is not ReplicaState.READY]
    return idle + [slot for slot in leaving if slot.state is ReplicaState.READY][:spare]


def _free_indexes(used: Collection[int], count: int) -> tuple[int, ...]:
    """The lowest indexes that are not used."""
    free = (index for index in range(len(used) + count) if index not in used)
    return tuple(islice(free, count))
