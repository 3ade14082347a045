"""Models that share one device, such as chat and embeddings on one GPU, scheduled together.

A burst of embeddings slows down every token of a chat model on the same device, and the limits of
one model do not see the other. Models that name the same ``device`` therefore share its
``concurrency``:

* Below its weighted share a model has room as long as the device has.
* Above its share a model gets what the others do not need. Reserved are one slot for each model
  without a request, so that a short embedding does not wait for the end of a long generation, and
  for each model with queued foreground requests as many slots as its share allows.
* Background requests of all models come after the foreground of all, and are preempted for it.

Requests are counted, not their cost on the device, which an engine does not report.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class DeviceUsage(NamedTuple):
    """A model's use of a device: its weight, its requests there, its queued foreground requests."""

    share: float
    busy: int
    queued: int


class DeviceModel(Protocol):
    """A model as its device sees it."""

    def device_usage(self) -> DeviceUsage:
        """The current usage."""

    def dispatch(self) -> None:
        """Dispatch as many queued requests as there is room for."""

    def preempt_background(self, count: int) -> None:
        """Preempt up to ``count`` of its background requests."""


def has_room(concurrency: int, mine: DeviceUsage, others: Sequence[DeviceUsage]) -> bool:
    """Whether a model may have one more request on a device of this concurrency.

    >>> has_room(4, DeviceUsage(1, 2, 0), [DeviceUsage(1, 0, 0)])
    True
    >>> has_room(4, DeviceUsage(1, 3, 0), [DeviceUsage(1, 0, 0)])
    False
    """
    free = concurrency - mine.busy - sum(other.busy for other in others)
    if free <= 0:
        return False
    part = concurrency / (mine.share + sum(other.share for other in others))
    if mine.busy < max(1, int(part * mine.share)):
        return True
    return free > sum(_reserved_slots(other, max(1, int(part * other.share))) for other in others)


def _reserved_slots(other: DeviceUsage, share_slots: int) -> int:
    """The free slots that stay reserved for a model with a share of ``share_slots``."""
    wanted = max(other.queued, 0 if other.busy else 1)
    return max(0, min(wanted, share_slots - other.busy))


def _slots_gained(
    concurrency: int,
    mine: DeviceUsage,
    other: DeviceUsage,
    rest: Sequence[DeviceUsage],
    wanted: int,
) -> int:
    """How many slots a model gains by preempting another; reserved slots are not gained."""
    for gained in range(min(wanted, other.busy)):
        less = other._replace(busy=other.busy - gained - 1)
        if not has_room(concurrency, mine._replace(busy=mine.busy + gained), [less, *rest]):
            return gained
    return min(wanted, other.busy)


class SharedDevice:
    """A device and the models that compute on it."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._models: list[DeviceModel] = []

    def join(self, model: DeviceModel) -> None:
        """Add a model."""
        self._models.append(model)

    def leave(self, model: DeviceModel) -> None:
        """Remove a model; its requests that still run are not counted any more."""
        self._models.remove(model)

    def has_room(self, model: DeviceModel) -> bool:
        """Whether the model may have one more request here."""
        return has_room(self.concurrency, model.device_usage(), self._others(model))

    def has_background_room(self, model: DeviceModel) -> bool:
        """Whether no other model has queued foreground requests."""
        return not any(other.queued for other in self._others(model))

    def dispatch(self) -> None:
        """Dispatch as many requests as there is room for; the least served model is first."""
        for model in sorted(self._models, key=_usage_per_share):
            model.dispatch()

    def preempt_for(self, model: DeviceModel, count: int) -> None:
        """Preempt background of other models for ``count`` requests, where that gains a slot."""
        mine = model.device_usage()
        for other in self._models:
            if other is model:
                continue
            rest = [one.device_usage() for one in self._models if one not in (model, other)]
            gained = _slots_gained(self.concurrency, mine, other.device_usage(), rest, count)
            other.preempt_background(gained)
            mine, count = mine._replace(busy=mine.busy + gained), count - gained

    def _others(self, model: DeviceModel) -> list[DeviceUsage]:
        return [one.device_usage() for one in self._models if one is not model]


def _usage_per_share(model: DeviceModel) -> float:
    share, busy, _ = model.device_usage()
    return busy / share
