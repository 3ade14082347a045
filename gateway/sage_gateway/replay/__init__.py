"""Recorded requests, run again under another policy: the queue's own code in simulated time.

:mod:`trace` is a recording, :mod:`recorder` makes one, :mod:`virtual` is the time, :mod:`simulate`
runs it, :mod:`figures` is what came of it; ``sage pool replay`` shows it.
"""

from sage_gateway.replay.recorder import Recorder
from sage_gateway.replay.trace import Head, Row, Trace, read

__all__ = ["Head", "Recorder", "Row", "Trace", "read"]
