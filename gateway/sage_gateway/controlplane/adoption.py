"""Adoption: taking over the engines of a gateway that was killed.

An engine is adopted if this gateway would start the very same command line. Other engines are
ended: no gateway uses them, and their requests were lost with the gateway that sent them.
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sage_gateway.controlplane.engine_state import EngineRecord, EngineStateStore, digest
from sage_gateway.engines.process import AdoptedProcess
from sage_gateway.models.model import Model

log = logging.getLogger("sage.gateway")


def adopt(store: EngineStateStore, models: Mapping[str, Model]) -> list[AdoptedProcess]:
    """Put the running engines into their models' replica slots, in place of all new ones.

    Returns the engines that were not adopted, for the caller to end.
    """
    for one in models.values():
        one.clear_slots()
    surplus = []
    for path, record in store.running_engines():
        try:
            engine = AdoptedProcess(record.pid)
        except OSError:  # it has ended since
            continue
        model = models.get(record.model)
        if model is not None and _would_start(model, record):
            _add_slot(model, record, engine, path)
            store.write_engine(path, record.model_copy(update={"owner": os.getpid()}))
        else:
            log.info("%s/%d: ending process %d", record.model, record.index, record.pid)
            surplus.append(engine)
            path.unlink(missing_ok=True)
    return surplus


def _would_start(model: Model, record: EngineRecord) -> bool:
    """Whether the slot is free and the model would start the engine with the same command line."""
    if any(slot.index == record.index for slot in model.replica_slots):
        return False
    try:
        command = model.engine.argv(replace(model.launch, port=record.port))
    except Exception:  # the engine's own code; the replica's supervisor reports it
        return False
    return digest(command, model.engine.env) == record.digest


def _add_slot(model: Model, record: EngineRecord, engine: AdoptedProcess, path: Path) -> None:
    slot = model.add_slot(record.index)
    slot.launch = replace(slot.launch, port=record.port)
    slot.launched_s = time.monotonic() - (time.time() - record.created_s)
    slot.process, slot.record = engine, path
