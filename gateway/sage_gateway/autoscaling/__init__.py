"""How many replicas a model has: decided on cause, pure; told, logged and followed by one loop.

:mod:`inputs` is what is known, :mod:`streams` what the jobs that call know, :mod:`decide` the
decision; :mod:`loop` collects, decides and calls whoever owns the replicas.
"""

from sage_gateway.autoscaling.decide import Action, Cause, Decision, State, decide, refused
from sage_gateway.autoscaling.inputs import Inputs
from sage_gateway.autoscaling.streams import Job, Operator

__all__ = [
    "Action",
    "Cause",
    "Decision",
    "Inputs",
    "Job",
    "Operator",
    "State",
    "decide",
    "refused",
]
