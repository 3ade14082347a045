"""What is told of decisions over HTTP."""

from typing import Annotated, Any

from fastapi import FastAPI, Query

from sage_gateway.autoscaling.decision_log import DECISIONS_MAX
from sage_gateway.autoscaling.loop import Autoscaler


def add(app: FastAPI, autoscaler: Autoscaler) -> None:
    """Put the route into ``app``."""

    @app.get("/pool/decisions", summary="The last decisions of scaling, the newest first")
    async def decisions(
        model: Annotated[str | None, Query(description="of this one; else of all")] = None,
        limit: Annotated[int, Query(ge=1, le=DECISIONS_MAX)] = DECISIONS_MAX,
    ) -> dict[str, Any]:
        return {"object": "list", "data": autoscaler.decisions.newest(model, limit)}
