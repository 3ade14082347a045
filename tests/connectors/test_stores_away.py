"""A store that is away says so, as something that may succeed later."""

import time

import pytest

from sage_connectors import milvus
from sage_flink.common import ConfigError, StoreUnavailable
from sage_flink.db import collection
from sage_flink.tsdb import bucket

AWAY = "http://127.0.0.1:1"


def test_milvus_away_is_unavailable_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    # Less time, but of the same type: pymilvus 2.5 tries for minutes when its timeout is no int.
    kind = type(milvus.CONNECT_TIMEOUT_S)
    monkeypatch.setattr(milvus, "CONNECT_TIMEOUT_S", kind(1))
    began = time.monotonic()

    with pytest.raises(StoreUnavailable, match=f"Milvus at {AWAY}, collection 'docs': connect"):
        collection("docs", dim=8, url=AWAY).open()

    assert time.monotonic() - began < 15


def test_influxdb_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_INFLUXDB_KEY", "key")
    with pytest.raises(StoreUnavailable, match=f"InfluxDB at {AWAY}"):
        bucket("ops", url=AWAY).open()


@pytest.mark.service
def test_a_wrong_key_is_a_setting_to_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_INFLUXDB_KEY", "wrong")
    with pytest.raises(ConfigError, match="the key is not accepted"):
        bucket("ops").open()


@pytest.mark.parametrize(("name", "dim"), [("1st", 8), ("a-b", 8), ("", 8), ("docs", 1)])
def test_a_collection_that_no_store_takes_is_refused_as_a_value(name: str, dim: int) -> None:
    with pytest.raises(ConfigError, match="must be"):
        collection(name, dim=dim)
