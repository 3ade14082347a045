"""What is told of tenants over HTTP: ``/v1/usage``, and ``/pool/keys`` for admins."""

import re
import secrets
import time
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sage_gateway.config.pool_spec import LimitsSpec, Name
from sage_gateway.errors import Conflict, InvalidRequest, NotFound
from sage_gateway.requests.cache_control import TTL_S_MAX
from sage_gateway.tenants.keys import LOCAL, Key, Scope, digest, fresh
from sage_gateway.tenants.store_protocol import Charge
from sage_gateway.tenants.tenants import Tenants

#: Where the ASGI scope has the client's key and tenant.
KEY, TENANT = "sage.key", "sage.tenant"
DAYS_MAX = 400
KEYS_MAX = 10_000


def _iso(shown: object) -> object:
    """Refuse what pydantic would take for a time since the epoch."""
    if isinstance(shown, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", shown):
        raise ValueError("must be a valid date, as 2026-11-24")
    return shown


Day = Annotated[date, BeforeValidator(_iso)]


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Name
    name: str = Field(default="", max_length=128)
    scopes: frozenset[Scope] = Field(
        default=frozenset({Scope.INFER}), min_length=1, json_schema_extra={"uniqueItems": False}
    )
    limits: LimitsSpec = LimitsSpec()
    cache_ttl_s: int = Field(
        default=0,
        ge=0,
        le=TTL_S_MAX,
        strict=True,
        description="x-sage-cache of requests with one likely answer",
    )


def add(app: FastAPI, tenants: Tenants) -> None:
    """Put the routes into ``app``."""

    @app.get("/v1/usage", summary="Requests and tokens by day, tenant, key, model and job")
    async def usage(
        request: Request,
        since: Annotated[Day | None, Query(description="UTC; else this month's first")] = None,
        until: Annotated[Day | None, Query(description="UTC; else today")] = None,
    ) -> dict[str, Any]:
        first, last = _days(since, until)
        await tenants.flush()
        found = await tenants.store.usage(first, last)
        key: Key = request.scope[KEY]
        every = key.may(Scope.ADMIN)
        mine = [_line(one) for one in found if every or one.row.tenant == key.tenant]
        return {"object": "list", "data": mine}

    @app.get("/pool/keys", summary="The keys that were made, without themselves")
    async def keys() -> dict[str, Any]:
        found = sorted(await tenants.store.keys(), key=lambda key: (key.tenant, key.made_s, key.id))
        return {"object": "list", "data": [_told(key) for key in found]}

    @app.post("/pool/keys", status_code=201, summary="Make a key, told this once")
    async def create(wanted: NewKey) -> dict[str, Any]:
        if wanted.tenant == LOCAL:
            raise InvalidRequest(f"{LOCAL!r} is the tenant of the local key; take another name")
        if len(await tenants.store.keys()) >= KEYS_MAX:
            raise Conflict(f"there are {KEYS_MAX} keys; revoke some")
        secret = fresh()
        key = Key(
            id=f"key-{secrets.token_hex(6)}",
            digest=digest(secret.encode()),
            tenant=wanted.tenant,
            scopes=wanted.scopes,
            name=wanted.name,
            limits=wanted.limits,
            made_s=int(time.time()),
            cache_ttl_s=wanted.cache_ttl_s,
        )
        await tenants.store.keep(key)
        await tenants.refresh()
        return _told(key) | {"key": secret}

    @app.delete("/pool/keys/{key_id}", summary="Revoke a key")
    async def revoke(key_id: str) -> dict[str, Any]:
        there = await tenants.store.drop(key_id)
        await tenants.refresh()
        if not there:
            message = f"no key {key_id!r}; GET /pool/keys lists them"
            raise NotFound(message, code="key_not_found")
        return {"id": key_id, "object": "key", "deleted": True}


def _told(key: Key) -> dict[str, Any]:
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


def _line(one: Charge) -> dict[str, Any]:
    day = datetime.strptime(str(one.row.day), "%Y%m%d").replace(tzinfo=UTC).date()
    return {
        "object": "usage",
        "day": day.isoformat(),
        "tenant": one.row.tenant,
        "key": one.row.key,
        "model": one.row.model,
        "job": one.row.job,
        "requests": one.requests,
        "prompt_tokens": one.prompt_tokens,
        "completion_tokens": one.completion_tokens,
        "total_tokens": one.tokens,
    }


def _days(since: date | None, until: date | None) -> tuple[int, int]:
    """Both as 20261124.

    Raises:
        GatewayError: 400, out of order or too far apart.
    """
    last = until or datetime.now(UTC).date()
    first = since or last.replace(day=1)
    if not 0 <= (last - first).days < DAYS_MAX:
        message = f"since must be at most {DAYS_MAX} days before until, got {first} and {last}"
        raise InvalidRequest(message, param="since")
    return int(f"{first:%Y%m%d}"), int(f"{last:%Y%m%d}")
