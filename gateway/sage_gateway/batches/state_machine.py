"""A batch's life as pure functions.

::

    VALIDATING ──► IN_PROGRESS ──► FINALIZING ──► COMPLETED
      │   │             │ └──────────► EXPIRED
      │   └─────────────┴─► CANCELLING ──► CANCELLED
      └──► FAILED

A gateway that was killed goes on from where a batch stands. VALIDATING and IN_PROGRESS are done
again, but for the lines that have their answer; FINALIZING and CANCELLING only gather the answers.
"""

from collections.abc import Mapping
from types import MappingProxyType

from sage_gateway.batches.schema import Batch, Status

WINDOW_S = 86_400
NEXT: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        Status.VALIDATING: frozenset(
            {Status.FAILED, Status.IN_PROGRESS, Status.CANCELLING, Status.EXPIRED}
        ),
        Status.IN_PROGRESS: frozenset({Status.FINALIZING, Status.CANCELLING, Status.EXPIRED}),
        Status.FINALIZING: frozenset({Status.COMPLETED}),
        Status.CANCELLING: frozenset({Status.CANCELLED}),
        Status.FAILED: frozenset(),
        Status.COMPLETED: frozenset(),
        Status.EXPIRED: frozenset(),
        Status.CANCELLED: frozenset(),
    }
)
CANCELLABLE = frozenset({Status.VALIDATING, Status.IN_PROGRESS})


def moved(batch: Batch, status: Status, now_s: float) -> Batch:
    """The batch in ``status``, since now.

    Raises:
        ValueError: there is no way there from where it stands.
    """
    if status not in NEXT[batch.status]:
        raise ValueError(f"a batch does not go from {batch.status} to {status}")
    return batch.model_copy(update={"status": status, f"{status}_at": int(now_s)})


def over(status: Status) -> bool:
    """Whether nothing more happens to it."""
    return not NEXT[status]
