"""An unavailable store raises StoreUnavailable, which is retryable; a wrong setting does not."""

import time

import pytest

from sage_connectors import milvus_connection
from sage_flink.common import ConfigError, StoreUnavailable
from sage_flink.db import collection
from sage_flink.tsdb import bucket

CLOSED = "http://127.0.0.1:1"


def test_an_unreachable_milvus_is_reported_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A shorter time of the same type: pymilvus 2.5 tries for minutes unless its timeout is an int.
    kind = type(milvus_connection.CONNECT_TIMEOUT_S)
    monkeypatch.setattr(milvus_connection, "CONNECT_TIMEOUT_S", kind(1))
    began = time.monotonic()

    with pytest.raises(StoreUnavailable, match=f"Milvus at {CLOSED}, collection 'docs': connect"):
        collection("docs", dim=8, url=CLOSED).open()

    assert time.monotonic() - began < 15


def test_an_unreachable_influxdb_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_INFLUXDB_KEY", "key")
    with pytest.raises(StoreUnavailable, match=f"InfluxDB at {CLOSED}"):
        bucket("ops", url=CLOSED).open()


@pytest.mark.service
def test_a_wrong_key_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_INFLUXDB_KEY", "wrong")
    with pytest.raises(ConfigError, match="the key is not accepted"):
        bucket("ops").open()


@pytest.mark.parametrize(("name", "dim"), [("1st", 8), ("a-b", 8), ("", 8), ("docs", 1)])
def test_an_invalid_collection_is_refused_before_it_is_opened(name: str, dim: int) -> None:
    with pytest.raises(ConfigError, match="must be"):
        collection(name, dim=dim)
