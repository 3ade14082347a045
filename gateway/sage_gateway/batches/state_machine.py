"""State machine of a batch, as pure functions.

::

    VALIDATING ──► IN_PROGRESS ──► FINALIZING ──► COMPLETED
      │   │             │ └──────────► EXPIRED
      │   └─────────────┴─► CANCELLING ──► CANCELLED
      └──► FAILED

After a crash the gateway resumes each batch in its saved state. VALIDATING and IN_PROGRESS are
repeated, except for the lines that already have their answer; FINALIZING and CANCELLING only write
the output files.
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


def with_status(batch: Batch, status: Status, now_s: float) -> Batch:
    """The batch in ``status``, with the time of the transition.

    Raises:
        ValueError: the transition is not in ``NEXT``.
    """
    if status not in NEXT[batch.status]:
        raise ValueError(f"a batch does not change from {batch.status} to {status}")
    return batch.model_copy(update={"status": status, f"{status}_at": int(now_s)})


def is_final(status: Status) -> bool:
    """Whether the batch has ended."""
    return not NEXT[status]
