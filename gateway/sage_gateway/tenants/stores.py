"""Choice of the tenants' store: the same kind as the idempotency store's, for the same reason."""

from pathlib import Path

from sage_gateway.config.storage_spec import LedgerSpec
from sage_gateway.tenants.store_protocol import TenantStore


def store(spec: LedgerSpec, folder: Path) -> TenantStore:
    """Redis where several gateways share an idempotency store, else a file in ``folder``."""
    if spec.store == "redis":
        from sage_gateway.tenants.redis import RedisTenantStore

        return RedisTenantStore(spec.redis, lease_s=spec.lease_s)
    from sage_gateway.tenants.sqlite import SqliteTenantStore

    return SqliteTenantStore(folder / "tenants.sqlite")
