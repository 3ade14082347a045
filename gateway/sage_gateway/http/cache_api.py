"""Route ``/pool/cache`` of admins."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from sage_gateway.cache.store_protocol import CacheStore


def add(app: FastAPI, stores: Sequence[CacheStore]) -> None:
    """Add the route to ``app``; ``stores`` are those of the caches."""

    @app.delete("/pool/cache", summary="Remove all cached answers and vectors, of all tenants")
    async def clear() -> dict[str, Any]:
        for store in stores:
            await store.clear()
        return {"object": "cache", "cleared": True}
