"""The parts of ``pool.yaml`` about what is kept: ledger, files and batches, cached responses."""

from typing import Literal

from pydantic import Field

from sage_flink.common.connections import RedisConnection
from sage_flink.common.connections_file import named_connection
from sage_gateway.config.spec import Spec


class LedgerSpec(Spec):
    """The idempotency store for requests with an id; see :mod:`sage_gateway.idempotency`."""

    store: Literal["sqlite", "redis", "off"] = Field(
        default="sqlite", description="redis: shared by several gateways"
    )
    url: str | None = Field(default=None, description="of Redis: redis://HOST:PORT/0")
    connection: str = Field(
        default="", description="of Redis, in place of a url: see `sage connections ls`"
    )
    ttl_s: float = Field(default=86_400.0, gt=0, description="how long a response is kept")
    bytes_max: int = Field(default=256 << 20, ge=1 << 20, description="of all responses")
    answer_bytes_max: int = Field(default=4 << 20, ge=1 << 10, description="of one response")
    grace_s: float = Field(
        default=30.0, ge=0, description="how long a call continues after its callers hung up"
    )
    orphans_max: int = Field(default=256, ge=0, description="how many calls may continue like this")
    lease_s: float = Field(
        default=10.0, gt=0, description="how long to wait for the calls of a dead gateway"
    )

    @property
    def redis(self) -> str | RedisConnection:
        """The connection that is named, else the URL; empty for another store.

        Raises:
            ConfigError: there is no such connection.
        """
        if self.connection:
            return named_connection(self.connection, RedisConnection)
        return self.url or ""


class BatchesSpec(Spec):
    """Limits of files and batches; see :mod:`sage_gateway.batches`."""

    file_bytes_max: int = Field(default=100 << 20, ge=1 << 10, description="of an upload")
    tenant_bytes_max: int = Field(
        default=1 << 30, ge=1 << 10, description="of all files of a tenant; beyond: 413"
    )
    lines_max: int = Field(default=50_000, ge=1, description="of one batch")
    lines_at_once: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="requests in flight of a batch, and of all batches for one model",
    )
    open_max: int = Field(default=100, ge=1, description="batches of a tenant; beyond: 429")


class CacheSpec(Spec):
    """Limits of the caches of responses and of vectors; see :mod:`sage_gateway.cache`."""

    bytes_max: int = Field(default=64 << 20, ge=1 << 10, description="of all responses")
    embedding_bytes_max: int = Field(
        default=1 << 30, ge=1 << 10, description="of all vectors, which a file keeps"
    )
    answer_bytes_max: int = Field(default=1 << 20, ge=1 << 10, description="of one response")
