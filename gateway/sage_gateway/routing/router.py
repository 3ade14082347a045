"""The policies by name, and the one owner of what a model's policy remembers."""

from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any, get_args

from sage_gateway.config.pool_spec import ModelSpec, Routing
from sage_gateway.requests.request import Request
from sage_gateway.routing.policy import Candidate, Hints, Policy, eligible

POLICIES: dict[str, Policy[Any]] = {
    name: import_module(f"sage_gateway.routing.{name}").POLICY for name in get_args(Routing)
}


class Router:
    """Chooses for one model, by the policy that its ``routing`` names."""

    def __init__(self, spec: ModelSpec) -> None:
        self._policy = POLICIES[spec.routing]
        self._state = self._policy.start(spec)

    def hints(self, request: Request) -> Hints:
        """The policy's hints of a request."""
        return self._policy.read(request)

    def choose(
        self,
        candidates: Sequence[Candidate],
        hints: Hints,
        *,
        tried: Collection[int] = (),
    ) -> int | None:
        """The index of the replica for the next request, None when none has room."""
        return self.among(eligible(candidates, tried=tried), hints)

    def among(self, open_: Sequence[Candidate], hints: Hints) -> int | None:
        """The same of those that are eligible, in the order of their places."""
        if not open_:
            return None
        index = self._policy.choose(open_, hints, self._state)
        self._state = self._policy.learn(self._state, hints, index)
        return index
