"""What decides the vectors of a model: engine, weights, arguments."""

import json
from collections.abc import Callable
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from cachetools import TTLCache

from sage_gateway.capacity.model_size import FILES_MAX
from sage_gateway.models.model import Model

#: For this long the weights on disk are taken as they were.
REREAD_S = 1.0


class ModelFingerprints:
    """The fingerprints of the pool's models, by a name or an alias that ``find`` knows.

    Weights are identified by the names, sizes and times of their files, those of a remote engine by
    its address and model name alone: where it serves another model under the same name, vectors
    stay the same until they expire.
    """

    def __init__(self, find: Callable[[str], Model | None]) -> None:
        self._find = find
        self._known: TTLCache[str, bytes] = TTLCache(maxsize=1024, ttl=REREAD_S)

    def __call__(self, name: str) -> bytes | None:
        """The fingerprint; None where there is no such model, or its weights cannot be read."""
        found = self._known.get(name)
        if found is None and (model := self._find(name)) is not None:
            try:
                found = self._known[name] = _fingerprint(model)
            except OSError:
                return None
        return found


def _fingerprint(model: Model) -> bytes:
    spec = model.spec
    named = [spec.engine, spec.source, spec.remote_model, spec.context_tokens, spec.dim]
    weights = _files(model.launch.source) if model.launch.source else []
    content = json.dumps([*named, list(spec.arguments), weights])
    return blake2b(content.encode(), digest_size=16).digest()


def _files(source: Path) -> list[tuple[str, int, int]]:
    files = sorted(islice(source.rglob("*"), FILES_MAX)) if source.is_dir() else [source]
    stats = [(str(file), file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
