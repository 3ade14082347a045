"""Taking over from a gateway that was killed: what was wanted of it, and the engines it left.

An engine is taken over where this gateway would start the very same command line; what is nobody's
is ended, since its requests died with the gateway that sent them.
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sage_gateway.controlplane.engine_state import Record, Records, digest
from sage_gateway.engines.process import Adopted
from sage_gateway.models.model import Model

log = logging.getLogger("sage.gateway")


def adopt(records: Records, models: Mapping[str, Model]) -> list[Adopted]:
    """Make the engines found members of their models, in place of all that were to be started.

    Those that are nobody's are returned, for the caller to end.
    """
    for model in models.values():
        model.members.clear()
    nobodys = []
    for path, record in records.found():
        try:
            engine = Adopted(record.pid)
        except OSError:  # it has ended just now
            continue
        found = models.get(record.model)
        if found is not None and _same(found, record):
            _enlist(found, record, engine, path)
            records.keep(path, record.model_copy(update={"owner": os.getpid()}))
        else:
            log.info("%s/%d: process %d is ended", record.model, record.place, record.pid)
            nobodys.append(engine)
            path.unlink(missing_ok=True)
    return nobodys


def _same(model: Model, record: Record) -> bool:
    """Whether the model has no other at that place, and would start the engine just so."""
    if any(member.place == record.place for member in model.members):
        return False
    try:
        line = model.engine.argv(replace(model.launch, port=record.port))
    except Exception:  # the engine's own code; its keeper tells of it
        return False
    return digest(line, model.engine.env) == record.digest


def _enlist(model: Model, record: Record, engine: Adopted, path: Path) -> None:
    member = model.enlist(record.place)
    member.launch = replace(member.launch, port=record.port)
    member.launched_s = time.monotonic() - (time.time() - record.created_s)
    member.process, member.record = engine, path
