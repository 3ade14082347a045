"""The router of a model: its routing policy with what that remembers."""

from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any, get_args

from sage_gateway.config.pool_spec import ModelSpec, Routing
from sage_gateway.requests.request import Request
from sage_gateway.routing.policy import Candidate, RoutingHints, RoutingPolicy, eligible

POLICIES: dict[str, RoutingPolicy[Any]] = {
    name: import_module(f"sage_gateway.routing.{name}").POLICY for name in get_args(Routing)
}


class Router:
    """Chooses replicas for one model, by the policy in its ``routing``."""

    def __init__(self, spec: ModelSpec) -> None:
        self._policy = POLICIES[spec.routing]
        self._state = self._policy.start(spec)

    def hints(self, request: Request) -> RoutingHints:
        """The hints that the policy reads from a request."""
        return self._policy.read(request)

    def choose(
        self,
        candidates: Sequence[Candidate],
        hints: RoutingHints,
        *,
        tried: Collection[int] = (),
    ) -> int | None:
        """The index of the replica for the next request, None when no replica has room."""
        return self.choose_among(eligible(candidates, tried=tried), hints)

    def choose_among(self, available: Sequence[Candidate], hints: RoutingHints) -> int | None:
        """As :meth:`choose`, given the eligible candidates in the order of index."""
        if not available:
            return None
        index = self._policy.choose(available, hints, self._state)
        self._state = self._policy.learn(self._state, hints, index)
        return index
