"""Autoscaling: how many replicas a model should have, and why.

``inputs`` is everything a decision depends on; ``window`` computes it from a model's counters,
``streams`` from the Flink jobs that call the model, which ``flink_jobs`` reads from Flink's REST
API. ``decide`` is the decision, a pure function. ``loop`` runs it once per second and applies the
result; ``decision_log`` keeps the last decisions for ``/pool/decisions``.
"""

from sage_gateway.autoscaling.decide import (
    Action,
    Cause,
    Decision,
    ScalingState,
    decide,
    reject,
)
from sage_gateway.autoscaling.inputs import Inputs
from sage_gateway.autoscaling.streams import JobStatus, Operator

__all__ = [
    "Action",
    "Cause",
    "Decision",
    "Inputs",
    "JobStatus",
    "Operator",
    "ScalingState",
    "decide",
    "reject",
]
