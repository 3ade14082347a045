"""The decision log: the last scaling decisions, for ``/pool/decisions`` and the metrics store."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from sage_flink.tsdb import Field, Point
from sage_gateway.autoscaling.decide import Decision

DECISIONS_MAX = 200


@dataclass(slots=True)
class LoggedDecision:
    """A decision that was taken ``times`` times, from ``since_s`` to ``at_s`` (of the epoch)."""

    model: str
    decision: Decision
    since_s: float
    at_s: float
    times: int = 1

    def to_json(self) -> dict[str, Any]:
        """The decision as a JSON object."""
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


class DecisionLog:
    """The last ``DECISIONS_MAX`` decisions. Repeated holds with the same cause are one entry."""

    def __init__(self) -> None:
        self._entries: deque[LoggedDecision] = deque(maxlen=DECISIONS_MAX)
        self._last: dict[str, LoggedDecision] = {}

    def add(self, model: str, decision: Decision, at_s: float) -> bool:
        """Log a decision; whether it differs from the last one of the model."""
        last = self._last.get(model)
        if last is not None and _same(last.decision, decision):
            last.decision, last.at_s, last.times = decision, at_s, last.times + 1
            return False
        self._last[model] = entry = LoggedDecision(model, decision, at_s, at_s)
        self._entries.append(entry)
        return True

    def newest(self, model: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest decisions first, of one model or of all."""
        found = [one.to_json() for one in reversed(self._entries) if model in (None, one.model)]
        return found[:limit]


def point(model: str, decision: Decision, at_s: float) -> Point:
    """The decision with its inputs, as a point for the time-series store."""
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
