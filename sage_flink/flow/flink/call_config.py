"""The settings of a call as its native operator reads them."""

import json
from typing import Any

from sage_flink.common.connections import GatewayConnection
from sage_flink.common.connections_file import connection_to
from sage_flink.common.settings import Settings
from sage_flink.flow.call_options import Merging
from sage_flink.flow.graph import Call
from sage_flink.flow.stateful.windows import milliseconds


def call_config(node: Call, settings: Settings) -> str:
    """The settings in JSON, as ``PoolConfig`` in Java documents them."""
    pool = connection_to(settings.gateway_url, GatewayConnection)
    return json.dumps(
        {
            "name": node.name,
            "urls": list(settings.gateway_urls),
            "path": node.spec.path,
            "mode": node.spec.mode,
            "model": node.spec.model,
            "capacity": node.capacity,
            "timeout_ms": round(node.timeout_s * 1000),
            "attempts_max": node.retry.attempts_max,
            "ordered": node.ordered,
            "items_max": node.batching.items_max,
            "tokens_max": node.batching.tokens_max,
            "linger_ms": round(node.batching.linger_s * 1000),
            "slack_ms": max(1, round(node.slack_s * 1000)),
            "merging": _merging(node.merging),
            "dim": getattr(node.spec, "dim", 0),
            "key": pool.key,
            "ca": pool.ca,
            "key_env": "SAGE_GATEWAY_KEY",
            "key_file": "keys/gateway",
        }
    )


def _merging(merging: Merging | None) -> dict[str, Any] | None:
    if merging is None:
        return None
    return {
        "threshold": merging.threshold,
        "within_ms": milliseconds(merging.within_s),
        "answers_max": merging.answers_max,
    }
