"""The last decisions, as they are told at ``/pool/decisions``."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from sage_flink.tsdb import Field, Point
from sage_gateway.autoscaling.decide import Decision

KEPT = 200


@dataclass(slots=True)
class Entry:
    """A decision, made ``times`` times from ``since_s`` to ``at_s`` (of the epoch)."""

    model: str
    decision: Decision
    since_s: float
    at_s: float
    times: int = 1

    def told(self) -> dict[str, Any]:
        """As JSON."""
        one = self.decision
        return {
            "object": "pool.decision",
            "model": self.model,
            "action": one.action,
            "replicas": one.replicas,
            "cause": one.cause,
            "words": one.words,
            "dry_run": one.dry_run,
            "since": self.since_s,
            "at": self.at_s,
            "times": self.times,
            "inputs": one.inputs.flat(),
        }


class Journal:
    """The last ``KEPT``. That nothing is to be done, for the same cause as before, is one entry."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._last: dict[str, Entry] = {}

    def note(self, model: str, decision: Decision, at_s: float) -> bool:
        """Keep a decision; whether it says something new."""
        last = self._last.get(model)
        if last is not None and _same(last.decision, decision):
            last.decision, last.at_s, last.times = decision, at_s, last.times + 1
            return False
        self._last[model] = entry = Entry(model, decision, at_s, at_s)
        self._entries.append(entry)
        return True

    def told(self, model: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest first, of one model or of all."""
        found = [one.told() for one in reversed(self._entries) if model in (None, one.model)]
        return found[:limit]


def point(model: str, decision: Decision, at_s: float) -> Point:
    """The decision with its inputs, for the time-series store."""
    tags = {"model": model, "action": decision.action, "cause": str(decision.cause)}
    fields: dict[str, Field] = {
        **decision.inputs.flat(),
        "replicas_wanted": decision.replicas,
        "words": decision.words,
        "dry_run": decision.dry_run,
    }
    return Point("pool_decision", tags, fields, int(at_s * 1e9))


def _same(one: Decision, other: Decision) -> bool:
    return one.action == other.action == "hold" and one.cause is other.cause
