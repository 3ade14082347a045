"""What the supervisors of all replicas share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from sage_gateway.controlplane.engine_state import EngineStateStore
from sage_gateway.models.model import Model


@dataclass(frozen=True, slots=True)
class SupervisorContext:
    """What all supervisors share.

    ``on_change`` is called when a replica of the model was checked or has ended; a slot whose
    process has ended for good is removed from the model before. Engines are recorded in ``store``,
    if there is one, and then outlive this process by ``grace_s``.
    """

    session: aiohttp.ClientSession
    logs: Path
    on_change: Callable[[Model], None]
    store: EngineStateStore | None = None
    grace_s: float = 0.0
