"""Management routes for admins: the models and replicas of the pool, and changes to them."""

import time
from typing import Annotated, Any

from fastapi import FastAPI, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import PathConvertor, register_url_convertor

from sage_flink.common import ConfigError
from sage_gateway.config import presets
from sage_gateway.config.pool_spec import ModelSpec, Name
from sage_gateway.controlplane.pool import REPLICAS_MAX, Pool
from sage_gateway.errors import Conflict, InvalidRequest
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot

ModelName = Annotated[Name, Path(description="a model, or an alias of one")]
ReplicaName = Annotated[str, Path(description="as GET /pool/replicas has it: MODEL/PLACE")]


class Scale(BaseModel):
    """The number of replicas to have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(ge=0, le=REPLICAS_MAX)


class _ModelPath(PathConvertor):
    """A model's name, which may contain slashes, but not the suffix of another route."""

    regex = r"(?!.*/scale$).*"


register_url_convertor("model", _ModelPath())


def add(app: FastAPI, pool: Pool) -> None:
    """Add the routes to ``app``."""
    _add_lists(app, pool)
    _add_replica_changes(app, pool)
    _add_model_changes(app, pool)


def _add_lists(app: FastAPI, pool: Pool) -> None:
    @app.get("/pool/models", summary="List the models: wanted and ready replicas, queue length")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(model) for model in pool.models.values()]}

    @app.get("/pool/replicas", summary="List the replicas: state and reason, process, load")
    async def replicas() -> dict[str, Any]:
        now_s = time.monotonic()
        return {"object": "list", "data": [_replica(*one, now_s) for one in pool.replica_slots()]}

    @app.get("/pool/presets", summary="List the shipped pool.yaml files by name")
    async def list_presets() -> dict[str, Any]:
        found = [{"id": n, "object": "preset", "pool": presets.text(n)} for n in presets.NAMES]
        return {"object": "list", "data": found}


def _add_replica_changes(app: FastAPI, pool: Pool) -> None:
    @app.post("/pool/models/{name:path}/scale", summary="Set the number of replicas")
    async def scale(name: ModelName, wanted: Scale) -> dict[str, Any]:
        pool.scale(name, wanted.replicas)
        model = pool.find(name)
        assert model is not None
        return _model(model)

    @app.post("/pool/replicas/{name:path}/drain", summary="Replace a replica, then stop it")
    async def drain(name: ReplicaName) -> dict[str, Any]:
        pool.drain(name)
        return {"id": name, "object": "replica", "leaving": True}


def _add_model_changes(app: FastAPI, pool: Pool) -> None:
    @app.put("/pool/models/{name:model}", summary="Add or change a model")
    async def put(name: ModelName, spec: ModelSpec, response: Response) -> dict[str, Any]:
        try:
            response.status_code = 201 if pool.put(name, spec) else 200
        except ConfigError as error:
            raise InvalidRequest(str(error), code="model_refused") from error
        return _model(pool.models[name])

    @app.delete("/pool/models/{name:model}", summary="Remove a model; queued requests finish")
    async def delete(name: ModelName) -> dict[str, Any]:
        model = pool.find(name)
        if model is not None and model.name != name:
            message = f"{name!r} is an alias of {model.name!r}; delete that, or PUT it without"
            raise Conflict(message, param="name")
        pool.delete(name)
        return {"id": name, "object": "model", "deleted": True}


def _model(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "engine": model.spec.engine,
        "kind": model.spec.kind,
        "aliases": model.spec.aliases,
        "wanted": model.wanted,
        "replicas": len(model.replica_slots),
        "ready": model.ready(),
        "in_flight": sum(member.in_flight for member in model.replica_slots),
        "waiting": len(model.queue),
        "policy": model.spec.policy,
        "routing": model.spec.routing,
        "spec": model.spec.model_dump(mode="json"),
    }


def _replica(model: Model, member: ReplicaSlot, now_s: float) -> dict[str, Any]:
    """``age_s`` is that of the process, ``state_s`` how long it has been in its state."""
    replica, engine = member.replica, member.process
    runs = engine is not None and engine.returncode is None
    return {
        "id": replica.name,
        "object": "replica",
        "model": model.name,
        "state": replica.state,
        "reason": replica.reason,
        "leaving": replica.leaving,
        "doubted": member.is_degraded(now_s),
        "state_s": round(now_s - replica.since_s, 1),
        "pid": engine.pid if engine is not None and runs else None,
        "url": member.url(""),
        "port": member.launch.port or None,
        "age_s": round(now_s - member.launched_s, 1) if runs else None,
        "in_flight": member.in_flight,
        "limit": member.concurrency,
        "restarts": replica.restarts,
        "circuit": member.breaker.circuit,
    }
