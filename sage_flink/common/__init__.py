"""What every layer shares: records, errors, settings."""

from sage_flink.common.errors import (
    ConfigError,
    NotFound,
    OperatorNeeded,
    PipelineError,
    PoolError,
    PoolTimeout,
    Rejected,
    Retryable,
    SageError,
    StackError,
    StoreUnavailable,
)
from sage_flink.common.records import FailedRecord, Record, decode, derived_id, encode
from sage_flink.common.settings import Settings, sage_home

__all__ = [
    "ConfigError",
    "FailedRecord",
    "NotFound",
    "OperatorNeeded",
    "PipelineError",
    "PoolError",
    "PoolTimeout",
    "Record",
    "Rejected",
    "Retryable",
    "SageError",
    "Settings",
    "StackError",
    "StoreUnavailable",
    "decode",
    "derived_id",
    "encode",
    "sage_home",
]
