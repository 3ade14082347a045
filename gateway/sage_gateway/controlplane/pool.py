"""The owner of what is wanted: which models there are, and how many replicas of each.

After every change :func:`sage_gateway.replicas.reconciler.step` says what is missing or too many;
keepers do the rest. What is changed here lasts until the gateway is stopped in order: the next one
begins with ``pool.yaml``. One that comes after a kill, with the same file, goes on where it was.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import aiohttp

from sage_flink.common import ConfigError
from sage_gateway.capacity import memory_budget
from sage_gateway.config.pool_file import coherent, mistakes
from sage_gateway.config.pool_spec import ModelSpec, PoolSpec
from sage_gateway.controlplane.adoption import adopt
from sage_gateway.controlplane.engine_state import Records, Wanted, digest
from sage_gateway.controlplane.replica_factory import model_of, models_of
from sage_gateway.controlplane.replica_supervisor import Ground, Keeper
from sage_gateway.engines import Engine, process
from sage_gateway.errors import Conflict, InvalidRequest, NotFound
from sage_gateway.models.model import Member, Model
from sage_gateway.replicas import reconciler
from sage_gateway.scheduling import Device

log = logging.getLogger("sage.gateway")

DRAIN_S = 10.0
REPLICAS_MAX = 64


class Pool:
    """All models. ``start`` returns at once; replicas become ready on their own.

    ``records``: where what runs is noted, for the gateway after this one to take over.

    Raises:
        ConfigError: a model cannot be started as it is written, or all together do not fit; all
            that is wrong is told.
    """

    def __init__(
        self,
        spec: PoolSpec,
        engines: Mapping[str, Engine],
        *,
        models: Path,
        logs: Path,
        records: Records | None = None,
    ) -> None:
        self.spec = spec
        self.models = models_of(spec, engines, models)
        self._devices = {name: Device(one.concurrency) for name, one in spec.devices.items()}
        for model in self.models.values():
            self._join(model)
        self._engines = engines
        self._folder = models
        self._logs = logs
        self._records = records
        self._base = digest([spec.model_dump_json()], {})
        self._aliases = _aliases(spec)
        self._machine = memory_budget.machine()
        if wrong := self._too_much():
            raise mistakes("pool", wrong)
        if told := memory_budget.crowded(_needs(self.models.values()), spec.budget, self._machine):
            log.warning(told)
        self._keepers: dict[Member, Keeper] = {}
        self._ground: Ground | None = None

    def find(self, name: str) -> Model | None:
        """The model of that name or alias."""
        known = self._aliases.get(name)
        return self.models[known] if known else None

    def members(self) -> Iterator[tuple[Model, Member]]:
        """Every replica with its model."""
        for model in self.models.values():
            for member in model.members:
                yield model, member

    def context_tokens_max(self) -> int:
        """The longest context of all models."""
        return max((model.spec.context_tokens for model in self.models.values()), default=0)

    def scale(self, model_name: str, replicas: int) -> None:
        """From now on ``replicas`` are wanted of the model; returns at once.

        New ones become ready on their own. Of those that are too many the ones that serve least go
        first: they take no new requests, and end when those in flight are answered. With none
        wanted the last one serves until nobody waits any more.

        Raises:
            GatewayError: 404 no such model, 400 not 0..``REPLICAS_MAX``, 409 more do not fit.
        """
        model = self._known(model_name)
        if not 0 <= replicas <= REPLICAS_MAX:
            message = f"{model.name}: replicas must be 0 to {REPLICAS_MAX}, got {replicas}"
            raise InvalidRequest(message, param="replicas")
        if replicas > model.wanted and (
            wrong := self._too_much(model.need._replace(replicas=replicas))
        ):
            raise Conflict("; ".join(wrong), code="does_not_fit", param="replicas")
        if replicas != model.wanted:
            log.info("%s: %d replicas wanted, were %d", model.name, replicas, model.wanted)
        model.wanted = replicas
        self._changed(model)

    def drain(self, replica_name: str) -> None:
        """Replace a replica: another is started, and once that is ready this one is drained.

        Raises:
            GatewayError: 404 no such replica.
        """
        for model, member in self.members():
            if member.replica.name == replica_name:
                if member in self._keepers:
                    self._keepers[member].leave()
                return self._reconcile(model)
        known = ", ".join(member.replica.name for _, member in self.members()) or "none"
        message = f"no replica {replica_name!r} here; there are {known}"
        raise NotFound(message, code="replica_not_found", param="name")

    def put(self, name: str, spec: ModelSpec) -> bool:
        """From now on there is the model ``name`` as ``spec`` has it: whether it is a new one.

        Replicas of a model that was another before are replaced, each when its successor is ready.

        Raises:
            ConfigError: it cannot be started as it is written, or does not go with the others.
            GatewayError: 409 what waits for the model that is there could not wait for this one.
        """
        wanted = {**self.spec.models, name: spec}
        pool = self.spec.model_copy(update={"models": wanted})
        coherent(pool, self._engines, "pool")
        engine, hosts = self._engines[spec.engine], self.spec.engine_hosts
        model = model_of(name, spec, engine, self._folder, hosts)
        if wrong := self._too_much(*_needs([model])):
            raise mistakes("pool", wrong)
        before = self.models.get(name)
        if before is None:
            self.models[name] = model
            self._join(model)
        elif before.spec != spec:
            self._turn(before, model)
        self.spec, self._aliases = pool, _aliases(pool)
        log.info("%s: %s", name, "added" if before is None else "changed")
        self._changed(self.models[name])
        return before is None

    def delete(self, name: str) -> None:
        """There is no model ``name`` any more; who waits for it, or is at it, is still answered.

        Raises:
            GatewayError: 404 no such model.
        """
        model = self._known(name)
        del self.models[model.name]
        if model.device is not None:
            model.device.leave(model)
        rest = {n: spec for n, spec in self.spec.models.items() if n != model.name}
        self.spec = self.spec.model_copy(update={"models": rest})
        self._aliases = _aliases(self.spec)
        model.wanted = 0
        log.info("%s: removed", model.name)
        self._changed(model)

    async def start(self) -> None:
        """Begin to keep every replica alive, those that an earlier gateway has left first."""
        if self._records is not None:
            self._go_on(self._records)
            nobodys = adopt(self._records, self.models)
            await asyncio.gather(*(process.stop(engine) for engine in nobodys))
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        grace_s = self.spec.engine_grace_s
        self._ground = Ground(session, self._logs, self._reconcile, self._records, grace_s)
        for model in self.models.values():
            self._reconcile(model)

    async def close(self) -> None:
        """Drain every replica for at most ``DRAIN_S`` seconds, end its process, leave no record."""
        if self._ground is None:
            return
        ground, self._ground = self._ground, None
        await asyncio.gather(*(keeper.stop(DRAIN_S) for keeper in self._keepers.values()))
        await ground.session.close()
        if self._records is not None:
            self._records.close()

    def _too_much(self, *changed: memory_budget.Need) -> list[str]:
        """Why the pool would not fit, with these needs in place of those that it has now."""
        needs = {need.name: need for need in (*_needs(self.models.values()), *changed)}
        return list(memory_budget.mistakes(needs.values(), self.spec.budget, self._machine))

    def _join(self, model: Model) -> None:
        if model.spec.device is not None:
            model.device = self._devices[model.spec.device]
            model.device.join(model)

    def _known(self, name: str) -> Model:
        model = self.find(name)
        if model is None:
            known = ", ".join(self.models) or "none"
            message = f"no model {name!r} here; there are {known}"
            raise NotFound(message, code="model_not_found", param="name")
        return model

    def _turn(self, model: Model, after: Model) -> None:
        """Make a model what ``after`` is; its replicas are of the past now."""
        for key in ("kind", "device", "policy", "queue_max", "queue_timeout_s"):
            if getattr(model.spec, key) != getattr(after.spec, key):
                message = (
                    f"{key} of {model.name} cannot be changed while it serves; delete it first"
                )
                raise Conflict(message, code="model_differs", param=key)
        model.turn(after)
        for member in model.members:
            if member in self._keepers:
                self._keepers[member].leave()

    def _go_on(self, records: Records) -> None:
        """Want what the gateway before wanted, as far as that is still possible."""
        before = records.wanted(self._base)
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

    def _changed(self, model: Model) -> None:
        """Something else is wanted of ``model``: note it and do it."""
        if self._ground is None:
            return
        if self._records is not None:
            replicas = {name: known.wanted for name, known in self.models.items()}
            wanted = Wanted(base=self._base, models=self.spec.models, replicas=replicas)
            try:
                self._records.want(wanted)
            except OSError as error:
                log.warning("the next gateway will not know what is wanted: %s", error)
        self._reconcile(model)

    def _reconcile(self, model: Model) -> None:
        """Do what is still to be done for ``model``; nothing before the start and after the end."""
        if self._ground is None:
            return
        seats = [
            reconciler.Seat(m.place, m.replica.state, m.replica.leaving) for m in model.members
        ]
        todo = reconciler.step(seats, model.wanted, waiting=not model.queue.idle())
        for place in todo.start:
            model.enlist(place)
        for member in [model.at(place) for place in todo.drain]:
            ending = self._keepers[member].stop(model.spec.timeout_s)
            ending.add_done_callback(partial(self._forget, member))
        for member in model.members:
            if member not in self._keepers:
                self._keepers[member] = Keeper(model, member, self._ground)

    def _forget(self, member: Member, _: "asyncio.Task[None]") -> None:
        self._keepers.pop(member, None)


def _needs(models: Iterable[Model]) -> list[memory_budget.Need]:
    return [model.need._replace(replicas=model.wanted) for model in models]


def _aliases(spec: PoolSpec) -> dict[str, str]:
    return {alias: name for name, model in spec.models.items() for alias in (name, *model.aliases)}
