"""The pool: the models and the wanted number of replicas of each.

After every change :func:`sage_gateway.replicas.reconciler.reconcile` computes the replicas to start
and to drain, and supervisors do it. Changes at run time last until the gateway is stopped in order:
the next gateway starts with ``pool.yaml``. A gateway that is started after a kill, with the same
file, continues with the changed state.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import aiohttp

from sage_flink.common import ConfigError
from sage_gateway.capacity import memory_budget
from sage_gateway.config.pool_file import config_error, validate
from sage_gateway.config.pool_spec import ModelSpec, PoolSpec
from sage_gateway.controlplane.adoption import adopt
from sage_gateway.controlplane.engine_state import EngineStateStore, WantedState, digest
from sage_gateway.controlplane.replica_factory import model_of, models_of
from sage_gateway.controlplane.replica_supervisor import ReplicaSupervisor
from sage_gateway.controlplane.supervisor_context import SupervisorContext
from sage_gateway.engines import Engine, process
from sage_gateway.errors import Conflict, InvalidRequest, NotFound
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.replicas import reconciler
from sage_gateway.scheduling import SharedDevice

log = logging.getLogger("sage.gateway")

DRAIN_S = 10.0
REPLICAS_MAX = 64


class Pool:
    """All models. ``start`` does not wait for the replicas, which become ready later.

    ``store``: where running engines are recorded, for the next gateway to take over.

    Raises:
        ConfigError: a model cannot be started as specified, or all together do not fit; the message
            lists every problem.
    """

    def __init__(
        self,
        spec: PoolSpec,
        engines: Mapping[str, Engine],
        *,
        models: Path,
        logs: Path,
        store: EngineStateStore | None = None,
    ) -> None:
        self.spec = spec
        self.models = models_of(spec, engines, models)
        self._devices = {name: SharedDevice(one.concurrency) for name, one in spec.devices.items()}
        for model in self.models.values():
            self._join_device(model)
        self._engines = engines
        self._folder = models
        self._logs = logs
        self._store = store
        self._base = digest([spec.model_dump_json()], {})
        self._aliases = _aliases(spec)
        self._machine = memory_budget.machine()
        if wrong := self._over_budget():
            raise config_error("pool", wrong)
        footprints = _footprints(self.models.values())
        if warning := memory_budget.oversubscription(footprints, spec.budget, self._machine):
            log.warning(warning)
        self._supervisors: dict[ReplicaSlot, ReplicaSupervisor] = {}
        self._context: SupervisorContext | None = None

    def find(self, name: str) -> Model | None:
        """The model of that name or alias."""
        known = self._aliases.get(name)
        return self.models[known] if known else None

    def replica_slots(self) -> Iterator[tuple[Model, ReplicaSlot]]:
        """Every replica slot with its model."""
        for model in self.models.values():
            for slot in model.replica_slots:
                yield model, slot

    def context_tokens_max(self) -> int:
        """The longest context of all models."""
        return max((model.spec.context_tokens for model in self.models.values()), default=0)

    def scale(self, model_name: str, replicas: int) -> None:
        """Set the wanted number of replicas; returns without waiting for them.

        Surplus replicas are drained, the least useful first: they take no new requests, and end
        when those in flight are answered. With 0 wanted the last one serves until the queue is
        empty.

        Raises:
            NotFound: no such model. InvalidRequest: not 0..``REPLICAS_MAX``. Conflict: they do not
                fit.
        """
        model = self._model(model_name)
        if not 0 <= replicas <= REPLICAS_MAX:
            message = f"{model.name}: replicas must be 0 to {REPLICAS_MAX}, got {replicas}"
            raise InvalidRequest(message, param="replicas")
        if replicas > model.wanted and (
            wrong := self._over_budget(model.footprint._replace(replicas=replicas))
        ):
            raise Conflict("; ".join(wrong), code="does_not_fit", param="replicas")
        if replicas != model.wanted:
            log.info("%s: %d replicas wanted, were %d", model.name, replicas, model.wanted)
        model.wanted = replicas
        self._apply(model)

    def drain(self, replica_name: str) -> None:
        """Replace a replica: another is started, and once that is ready this one is drained.

        Raises:
            NotFound: no such replica.
        """
        for model, slot in self.replica_slots():
            if slot.replica.name == replica_name:
                if slot in self._supervisors:
                    self._supervisors[slot].request_replacement()
                return self._reconcile(model)
        known = ", ".join(slot.replica.name for _, slot in self.replica_slots()) or "none"
        message = f"no replica {replica_name!r} here; there are {known}"
        raise NotFound(message, code="replica_not_found", param="name")

    def put(self, name: str, spec: ModelSpec) -> bool:
        """Add the model ``name``, or change its spec; whether it is new.

        Replicas with the old spec are replaced, each when its successor is ready.

        Raises:
            ConfigError: it cannot be started as specified, or conflicts with the other models.
            Conflict: requests queued for the existing model could not be queued for this one.
        """
        wanted = {**self.spec.models, name: spec}
        pool = self.spec.model_copy(update={"models": wanted})
        validate(pool, self._engines, "pool")
        engine, hosts = self._engines[spec.engine], self.spec.engine_hosts
        model = model_of(name, spec, engine, self._folder, hosts)
        if wrong := self._over_budget(*_footprints([model])):
            raise config_error("pool", wrong)
        before = self.models.get(name)
        if before is None:
            self.models[name] = model
            self._join_device(model)
        elif before.spec != spec:
            self._reconfigure(before, model)
        self.spec, self._aliases = pool, _aliases(pool)
        log.info("%s: %s", name, "added" if before is None else "changed")
        self._apply(self.models[name])
        return before is None

    def delete(self, name: str) -> None:
        """Remove the model ``name``; queued requests and those in flight are still answered.

        Raises:
            NotFound: no such model.
        """
        model = self._model(name)
        del self.models[model.name]
        if model.device is not None:
            model.device.leave(model)
        rest = {n: spec for n, spec in self.spec.models.items() if n != model.name}
        self.spec = self.spec.model_copy(update={"models": rest})
        self._aliases = _aliases(self.spec)
        model.wanted = 0
        log.info("%s: removed", model.name)
        self._apply(model)

    async def start(self) -> None:
        """Adopt the engines of an earlier gateway, and start to supervise every replica."""
        if self._store is not None:
            self._restore(self._store)
            surplus = adopt(self._store, self.models)
            await asyncio.gather(*(process.stop(engine) for engine in surplus))
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._context = SupervisorContext(
            session, self._logs, self._reconcile, self._store, self.spec.engine_grace_s
        )
        for model in self.models.values():
            self._reconcile(model)

    async def close(self) -> None:
        """Drain every replica for at most ``DRAIN_S`` seconds, end its process, keep no record."""
        if self._context is None:
            return
        context, self._context = self._context, None
        await asyncio.gather(*(one.stop(DRAIN_S) for one in self._supervisors.values()))
        await context.session.close()
        if self._store is not None:
            self._store.close()

    def _over_budget(self, *changed: memory_budget.Footprint) -> list[str]:
        """Why the pool would not fit, with these footprints in place of the current ones."""
        footprints = {one.name: one for one in (*_footprints(self.models.values()), *changed)}
        budget = self.spec.budget
        return list(memory_budget.problems(footprints.values(), budget, self._machine))

    def _join_device(self, model: Model) -> None:
        if model.spec.device is not None:
            model.device = self._devices[model.spec.device]
            model.device.join(model)

    def _model(self, name: str) -> Model:
        model = self.find(name)
        if model is None:
            known = ", ".join(self.models) or "none"
            message = f"no model {name!r} here; there are {known}"
            raise NotFound(message, code="model_not_found", param="name")
        return model

    def _reconfigure(self, model: Model, after: Model) -> None:
        """Give a model the spec of ``after``, and request the replacement of its replicas."""
        for key in ("kind", "device", "policy", "queue_max", "queue_timeout_s"):
            if getattr(model.spec, key) != getattr(after.spec, key):
                message = (
                    f"{key} of {model.name} cannot be changed while it serves; delete it first"
                )
                raise Conflict(message, code="model_differs", param=key)
        model.reconfigure(after)
        for slot in model.replica_slots:
            if slot in self._supervisors:
                self._supervisors[slot].request_replacement()

    def _restore(self, store: EngineStateStore) -> None:
        """Restore the wanted state of an earlier gateway, as far as it is still possible."""
        before = store.read_wanted(self._base)
        if before is None:
            return
        for name, model in list(self.models.items()):
            if before.models.get(name) != model.spec:
                self.delete(name)
        for name, spec in before.models.items():
            try:
                self.put(name, spec)
                self.models[name].wanted = before.replicas[name]
            except ConfigError as error:
                log.warning("%s: not taken over: %s", name, error)

    def _apply(self, model: Model) -> None:
        """Record a changed wanted state of ``model``, and reconcile it."""
        if self._context is None:
            return
        if self._store is not None:
            replicas = {name: known.wanted for name, known in self.models.items()}
            wanted = WantedState(base=self._base, models=self.spec.models, replicas=replicas)
            try:
                self._store.write_wanted(wanted)
            except OSError as error:
                log.warning("the next gateway will not know the wanted state: %s", error)
        self._reconcile(model)

    def _reconcile(self, model: Model) -> None:
        """Start and drain replicas of ``model``; before the start and after the end, do nothing."""
        if self._context is None:
            return
        slots = [
            reconciler.SlotView(slot.index, slot.replica.state, slot.replica.leaving)
            for slot in model.replica_slots
        ]
        waiting = not model.queue.is_idle()
        actions = reconciler.reconcile(slots, model.wanted, waiting=waiting)
        for index in actions.start:
            model.add_slot(index)
        for slot in [model.slot(index) for index in actions.drain]:
            stopping = self._supervisors[slot].stop(model.spec.timeout_s)
            stopping.add_done_callback(partial(self._remove_supervisor, slot))
        for slot in model.replica_slots:
            if slot not in self._supervisors:
                self._supervisors[slot] = ReplicaSupervisor(model, slot, self._context)

    def _remove_supervisor(self, slot: ReplicaSlot, _: "asyncio.Task[None]") -> None:
        self._supervisors.pop(slot, None)


def _footprints(models: Iterable[Model]) -> list[memory_budget.Footprint]:
    return [model.footprint._replace(replicas=model.wanted) for model in models]


def _aliases(spec: PoolSpec) -> dict[str, str]:
    return {alias: name for name, model in spec.models.items() for alias in (name, *model.aliases)}
