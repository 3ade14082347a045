"""The systems that a pipeline touches, one a file; their clients are imported where they are used.

The stores ``sage_connectors.milvus`` and ``sage_connectors.influxdb`` are found by name through
``sage.db`` and ``sage.tsdb``.
"""

from typing import TYPE_CHECKING, Any

from sage_connectors.files import DecodeFile, Files, files
from sage_connectors.files_sink import JsonFiles, ParquetFiles, files_sink
from sage_connectors.formats import (
    Avro,
    CloudEvents,
    Csv,
    Debezium,
    Fields,
    Json,
    Protobuf,
    Raw,
    Text,
)
from sage_connectors.generator import Generator, generator
from sage_connectors.kafka import Kafka, kafka
from sage_connectors.lookup import Lookup
from sage_connectors.tables import HttpTable, RedisTable

if TYPE_CHECKING:
    from sage_connectors.http import HttpPool, http_pool

__all__ = [
    "Avro",
    "CloudEvents",
    "Csv",
    "Debezium",
    "DecodeFile",
    "Fields",
    "Files",
    "Generator",
    "HttpPool",
    "HttpTable",
    "Json",
    "JsonFiles",
    "Kafka",
    "Lookup",
    "ParquetFiles",
    "Protobuf",
    "Raw",
    "RedisTable",
    "Text",
    "files",
    "files_sink",
    "generator",
    "http_pool",
    "kafka",
]


def __getattr__(name: str) -> Any:
    """aiohttp is loaded by the first use of the pool, not by naming a topic."""
    if name in {"HttpPool", "http_pool"}:
        from sage_connectors import http

        return getattr(http, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
