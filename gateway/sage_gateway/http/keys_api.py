"""Routes ``/v1/usage`` of every tenant and ``/pool/keys`` of admins."""

import re
import secrets
import time
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

from sage_gateway.config.pool_spec import LOCAL, LimitsSpec, Name, whole
from sage_gateway.errors import Conflict, InvalidRequest, NotFound
from sage_gateway.requests.cache_control import TTL_S_MAX
from sage_gateway.tenants.keys import Key, Scope, digest, fresh
from sage_gateway.tenants.store_protocol import Charge
from sage_gateway.tenants.tenants import Tenants

#: Where the ASGI scope has the client's key and tenant.
KEY, TENANT = "sage.key", "sage.tenant"
DAYS_MAX = 400
KEYS_MAX = 10_000


def _iso(shown: object) -> object:
    """Refuse a number, which pydantic would read as a time since the epoch."""
    if isinstance(shown, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", shown):
        raise ValueError("must be a valid date, as 2026-11-24")
    return shown


TtlS = Annotated[int, Strict(), Field(ge=0, le=TTL_S_MAX), BeforeValidator(whole)]
Day = Annotated[date, BeforeValidator(_iso)]


class NewKey(BaseModel):
    """The request for a new API key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Name
    name: str = Field(default="", max_length=128)
    scopes: frozenset[Scope] = Field(
        default=frozenset({Scope.INFER}), min_length=1, json_schema_extra={"uniqueItems": False}
    )
    limits: LimitsSpec = LimitsSpec()
    cache_ttl_s: TtlS = Field(
        default=0,
        description="x-sage-cache of requests whose answer is deterministic",
    )


def add(app: FastAPI, tenants: Tenants) -> None:
    """Add the routes to ``app``."""
    _add_usage(app, tenants)
    _add_keys(app, tenants)


def _add_usage(app: FastAPI, tenants: Tenants) -> None:
    @app.get("/v1/usage", summary="Requests and tokens by day, tenant, key, model and job")
    async def usage(
        request: Request,
        since: Annotated[
            Day | None, Query(description="UTC; default: the 1st of this month")
        ] = None,
        until: Annotated[Day | None, Query(description="UTC; default: today")] = None,
    ) -> dict[str, Any]:
        first, last = _days(since, until)
        await tenants.flush()
        found = await tenants.store.usage(first, last)
        key: Key = request.scope[KEY]
        visible = [
            _usage_item(c) for c in found if key.may(Scope.ADMIN) or c.row.tenant == key.tenant
        ]
        return {"object": "list", "data": visible}


def _add_keys(app: FastAPI, tenants: Tenants) -> None:
    @app.get("/pool/keys", summary="List the API keys, without their secrets")
    async def keys() -> dict[str, Any]:
        found = sorted(await tenants.store.keys(), key=lambda key: (key.tenant, key.made_s, key.id))
        return {"object": "list", "data": [_key_item(key) for key in found]}

    @app.post("/pool/keys", status_code=201, summary="Create an API key; its secret is shown once")
    async def create(wanted: NewKey) -> dict[str, Any]:
        if wanted.tenant == LOCAL:
            raise InvalidRequest(f"{LOCAL!r} is the tenant of the local key; take another name")
        if len(await tenants.store.keys()) >= KEYS_MAX:
            raise Conflict(f"there are {KEYS_MAX} keys; revoke some")
        secret = fresh()
        key = _key_of(wanted, secret)
        await tenants.store.add_key(key)
        await tenants.refresh()
        return _key_item(key) | {"key": secret}

    @app.delete("/pool/keys/{key_id}", summary="Revoke an API key")
    async def revoke(key_id: str) -> dict[str, Any]:
        existed = await tenants.store.delete_key(key_id)
        await tenants.refresh()
        if not existed:
            message = f"no key {key_id!r}; GET /pool/keys lists them"
            raise NotFound(message, code="key_not_found")
        return {"id": key_id, "object": "key", "deleted": True}


def _key_of(wanted: NewKey, secret: str) -> Key:
    return Key(
        id=f"key-{secrets.token_hex(6)}",
        digest=digest(secret.encode()),
        tenant=wanted.tenant,
        scopes=wanted.scopes,
        name=wanted.name,
        limits=wanted.limits,
        made_s=int(time.time()),
        cache_ttl_s=wanted.cache_ttl_s,
    )


def _key_item(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "limits": key.limits.model_dump(exclude_none=True),
        **({"cache_ttl_s": key.cache_ttl_s} if key.cache_ttl_s else {}),
        "created": key.made_s,
    }


def _usage_item(charge: Charge) -> dict[str, Any]:
    row = charge.row
    day = datetime.strptime(str(row.day), "%Y%m%d").replace(tzinfo=UTC).date()
    return {
        "object": "usage",
        "day": day.isoformat(),
        "tenant": row.tenant,
        "key": row.key,
        "model": row.model,
        "job": row.job,
        "requests": charge.requests,
        "prompt_tokens": charge.prompt_tokens,
        "completion_tokens": charge.completion_tokens,
        "total_tokens": charge.tokens,
    }


def _days(since: date | None, until: date | None) -> tuple[int, int]:
    """Both days as 20261124.

    Raises:
        InvalidRequest: out of order or too far apart.
    """
    last = until or datetime.now(UTC).date()
    first = since or last.replace(day=1)
    if not 0 <= (last - first).days < DAYS_MAX:
        message = f"since must be at most {DAYS_MAX} days before until, got {first} and {last}"
        raise InvalidRequest(message, param="since")
    return int(f"{first:%Y%m%d}"), int(f"{last:%Y%m%d}")
