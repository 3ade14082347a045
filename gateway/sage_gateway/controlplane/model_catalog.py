"""The names that a request may put into ``model``: models of the pool, aliases, pipelines."""

from collections.abc import Collection

from sage_gateway.controlplane.pool import Pool
from sage_gateway.errors import InvalidRequest, NotFound
from sage_gateway.models.model import Model
from sage_gateway.openai.schema import EmbeddingsRequest, ModelRequest, RerankRequest

_KINDS: dict[type[ModelRequest], str] = {EmbeddingsRequest: "embedding", RerankRequest: "rerank"}


class ModelCatalog:
    """``pipelines``: the names of the pipelines that are served as models."""

    def __init__(self, pool: Pool, pipelines: Collection[str] = ()) -> None:
        self.pool = pool
        self.pipelines = pipelines

    def names(self) -> list[str]:
        """Every name but the aliases."""
        return [*self.pool.models, *self.pipelines]

    def knows(self, name: str) -> bool:
        """Whether a request may name it; aliases count."""
        return self.pool.find(name) is not None or name in self.pipelines

    def not_found(self, name: str) -> NotFound:
        """The error of a name that is not here."""
        known = ", ".join(self.names())
        message = f"no model {name!r} here; there are {known}"
        return NotFound(message, code="model_not_found", param="model")

    def model_for(self, request: ModelRequest, path: str) -> Model:
        """The pool's model that answers a request to ``path``.

        Raises:
            NotFound: there is no such model.
            InvalidRequest: the model is of a kind that does not answer ``path``.
        """
        model = self.pool.find(request.model)
        if model is None and request.model not in self.pipelines:
            raise self.not_found(request.model)
        if model is None or model.spec.kind != _KINDS.get(type(request), "chat"):
            kind = model.spec.kind if model else "mounted pipeline"
            message = f"{request.model!r} is a {kind} model: it does not answer {path}"
            raise InvalidRequest(message, code="wrong_model_kind", param="model")
        return model
