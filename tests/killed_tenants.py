"""The end of a tenant store whose gateway is killed."""

from sage_gateway.tenants.redis import LEASE, RedisTenantStore
from sage_gateway.tenants.sqlite import SqliteTenantStore
from sage_gateway.tenants.store_protocol import TenantStore


async def kill(store: TenantStore) -> None:
    """End a store as ``kill -9`` does: the kernel has its log, its lock and its lease end."""
    match store:
        case SqliteTenantStore():
            await store._log.close()
            await store._thread(store._tables.close)
            await store._thread.close()
        case RedisTenantStore():
            assert store._renewing is not None
            store._renewing.cancel()
            async with store._redis.client() as client:
                await client.delete(LEASE + store._life)
            await store._redis.close()
