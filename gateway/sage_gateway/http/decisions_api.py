"""What is told of decisions over HTTP."""

from typing import Annotated, Any

from fastapi import FastAPI, Query

from sage_gateway.autoscaling.decision_log import KEPT
from sage_gateway.autoscaling.loop import Autoscaler


def add(app: FastAPI, autoscaler: Autoscaler) -> None:
    """Put the route into ``app``."""

    @app.get("/pool/decisions", summary="The last decisions of scaling, the newest first")
    async def decisions(
        model: Annotated[str | None, Query(description="of this one; else of all")] = None,
        limit: Annotated[int, Query(ge=1, le=KEPT)] = KEPT,
    ) -> dict[str, Any]:
        return {"object": "list", "data": autoscaler.journal.told(model, limit)}
