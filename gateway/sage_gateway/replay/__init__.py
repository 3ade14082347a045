"""Replay: recorded requests under another policy, with the gateway's queue in simulated time.

``recorder`` writes a trace of requests, ``trace`` is its format. ``simulate`` runs a trace on the
simulated clock of ``virtual``, ``figures`` summarises the result. ``__main__`` is the command that
``sage pool replay`` runs.
"""

from sage_gateway.replay.recorder import Recorder
from sage_gateway.replay.trace import Trace, TraceHeader, TraceRow, read

__all__ = ["Recorder", "Trace", "TraceHeader", "TraceRow", "read"]
