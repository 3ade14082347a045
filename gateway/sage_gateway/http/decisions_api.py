"""Scaling decisions over HTTP."""

from typing import Annotated, Any

from fastapi import FastAPI, Query

from sage_gateway.autoscaling.decision_log import DECISIONS_MAX
from sage_gateway.autoscaling.loop import Autoscaler


def add(app: FastAPI, autoscaler: Autoscaler) -> None:
    """Add the route to ``app``."""

    @app.get("/pool/decisions", summary="List the last scaling decisions, the newest first")
    async def decisions(
        model: Annotated[str | None, Query(description="default: all models")] = None,
        limit: Annotated[int, Query(ge=1, le=DECISIONS_MAX)] = DECISIONS_MAX,
    ) -> dict[str, Any]:
        return {"object": "list", "data": autoscaler.decisions.newest(model, limit)}
