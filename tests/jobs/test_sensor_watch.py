"""The job that watches sensors: precision and recall on anomalies that are known."""

import asyncio
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner
from waiting import wait_until

import sage_flink as sage
from sage_connectors import http_pool
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Record, Settings
from sage_flink.flow import Fold
from sage_flink.flow.call_ports import Reply
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.inference import EchoPool
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.job_accounting import job_balance
from sage_jobs import rag_ingest, sensor_data, sensor_watch
from sage_jobs.rag_ingest import RagIngest
from sage_jobs.sensor_data import MANUALS, MINUTE_MS, Anomaly, SensorLog, manual, sensor_log
from sage_jobs.sensor_watch import SensorWatch

pytestmark = pytest.mark.slow

SINKS = ("alerts", "explanations", "window-points", "alert-points", "late-points")
SEEDS = (1, 2)
MINUTES = 480
PASSAGES = ("Manual of the pump: refill it.", "Manual of the fan.")


@dataclass
class CountingPool:
    """An EchoPool that counts its requests by path."""

    pool: EchoPool = field(default_factory=lambda: EchoPool(passages=PASSAGES))
    paths: list[str] = field(default_factory=list)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.paths.append(path)
        return await self.pool.post(path, body, headers)


def messages(log: SensorLog) -> ListSource:
    places = ((f"points/0/{n}", value) for n, (_, value) in enumerate(log.messages))
    return ListSource(tuple(Record(id_, value, origin=id_) for id_, value in places))


def run(graph: Any, source: ListSource, pool: Any = None) -> Any:
    return asyncio.run(
        sage.flow.run(
            graph,
            pool=pool or CountingPool(),
            sources={"points": source},
            sinks={name: ListSink() for name in SINKS},
        )
    )


@cache
def watched(seed: int) -> tuple[SensorLog, Any, list[str]]:
    """A log, what the job makes of it, and the paths of its calls."""
    log, pool = sensor_log(seed=seed, minutes=MINUTES), CountingPool()
    return log, run(sensor_watch.build(), messages(log), pool), pool.paths


def alerts_of(outcome: Any) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in outcome.written["alerts"]]


def precision_and_recall(
    alerts: list[dict[str, Any]], labels: list[Anomaly]
) -> tuple[float, float]:
    """By pandas: minutes in which an alert is open, and minutes of anomalies, side by side."""
    closed = {one["id"]: one["closed_at_ms"] for one in alerts if one["state"] == "close"}
    opened = [one for one in alerts if one["state"] == "open"]
    found = pd.DataFrame(
        [(a["key"], a["above_since_ms"], closed.get(a["id"], a["opened_at_ms"])) for a in opened],
        columns=["sensor", "from", "to"],
    ).reset_index(names="alert")
    truth = pd.DataFrame(
        [(one.sensor, one.start_ms, one.end_ms) for one in labels], columns=["sensor", "a", "b"]
    ).reset_index(names="anomaly")
    both = found.merge(truth, on="sensor").query("`from` < b and a < to")
    precision = both["alert"].nunique() / max(1, len(found))
    return precision, both["anomaly"].nunique() / len(truth)


def test_the_job_is_a_sound_graph_for_flink() -> None:
    assert sage.flow.check(sensor_watch.build(), "flink")


@pytest.mark.parametrize("seed", SEEDS)
def test_alerts_are_those_of_the_injected_anomalies(seed: int) -> None:
    log, outcome, _ = watched(seed)

    alerts = alerts_of(outcome)
    precision, recall = precision_and_recall(alerts, log.anomalies)
    assert len(log.anomalies) >= 8
    assert precision >= 0.9
    assert recall >= 0.9
    assert sensor_data.precision_and_recall(alerts, log.anomalies) == (precision, recall)
    assert outcome.failed == []
    states = pd.DataFrame(alerts).groupby("id")["state"].agg(list)
    assert set(map(tuple, states)) <= {("open", "close"), ("open",)}
    assert outcome.written["late-points"] == []


def test_without_the_detector_none_is_found() -> None:
    log = sensor_log(seed=1, minutes=240)
    graph = sensor_watch.build()
    nodes = tuple(
        replace(node, function=no_score)
        if isinstance(node, Fold) and node.name == "score"
        else node
        for node in graph.nodes
    )

    outcome = run(replace(graph, nodes=nodes), messages(log))

    assert outcome.written["alerts"] == []
    assert precision_and_recall([], log.anomalies)[1] == 0.0
    assert sensor_data.precision_and_recall([], log.anomalies) == (0.0, 0.0)


def no_score(state: Any, record: Record) -> tuple[Any, list[Record]]:
    return state, [record.replace(value={**record.value, "score": 0.0})]


def test_calm_windows_cost_no_call_and_an_alert_one_of_each() -> None:
    calm, pool = sensor_log(seed=1, minutes=240, anomalies=False), CountingPool()
    assert run(sensor_watch.build(), messages(calm), pool).written["alerts"] == []
    assert pool.paths == []

    _, outcome, paths = watched(1)

    opened = {one["id"]: one for one in alerts_of(outcome) if one["state"] == "open"}
    searches = ["/v1/vector_stores/manuals/search"] * len(opened)
    assert sorted(paths) == sorted([*searches, *["/v1/chat/completions"] * len(opened)])
    explained = [json.loads(record.value) for record in outcome.written["explanations"]]
    assert {one["id"] for one in explained} == set(opened)
    for one in explained:
        sensor = opened[one["id"]]["key"]
        assert f"Sensor {sensor} reports" in one["question"]
        assert "Manual of the pump" in one["answer"]
        assert one["sources"]


def test_every_window_and_every_alert_is_a_point() -> None:
    log, outcome, _ = watched(1)

    points = pd.DataFrame(log.points)
    points["window"] = points["at"] // MINUTE_MS * MINUTE_MS
    truth = points.groupby(["sensor", "window"])["value"].agg(["mean", "min", "max", "count"])
    found = {
        (p["tags"]["sensor"], p["timestamp_ns"] // 10**6): p["fields"]
        for p in (record.value for record in outcome.written["window-points"])
    }
    assert list(truth.index) == sorted(found)
    values = [[found[key][n] for n in ("mean", "least", "most", "points")] for key in truth.index]
    assert np.allclose(values, truth.to_numpy())
    last = {
        (p["tags"]["sensor"], p["timestamp_ns"]): p["fields"]
        for p in (record.value for record in outcome.written["alert-points"])
    }
    by_id = {one["id"]: one for one in alerts_of(outcome)}
    assert {(by_id[f["id"]]["key"], by_id[f["id"]]["state"]) for f in last.values()} == {
        (one["key"], one["state"]) for one in by_id.values()
    }
    assert len(last) == len(by_id)


def test_bad_points_are_dead_letters_and_a_model_that_fails_costs_the_explanation_only() -> None:
    log = sensor_log(seed=1, minutes=240)
    bad = [b"no json", b'{"sensor": "pump-1", "value": 3}', b'{"at": 1704067200000, "value": 3}']
    bad += [json.dumps({**log.points[0], "value": "hot"}).encode()]
    source = messages(log)
    wrong = tuple(Record(f"points/1/{n}", v, origin=f"points/1/{n}") for n, v in enumerate(bad))

    outcome = run(sensor_watch.build(), ListSource((*wrong, *source.rows)), NoModel())

    alerts = alerts_of(outcome)
    steps = [failed.step for failed in outcome.failed]
    assert steps[:4] == ["points", "time", "by-sensor", "windows"]
    assert precision_and_recall(alerts, log.anomalies)[1] >= 0.9
    opened = [one for one in alerts if one["state"] == "open"]
    assert steps[4:] == ["explain"] * len(opened)
    assert outcome.written["explanations"] == []


class NoModel(CountingPool):
    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        if path == "/v1/chat/completions":
            return Reply(400, b'{"error": {"message": "no such model"}}')
        return await super().post(path, body, headers)


def test_a_log_is_the_same_for_a_seed_and_another_for_another() -> None:
    log = sensor_log(seed=1, minutes=200)

    assert sensor_log(seed=1, minutes=200) == log != sensor_log(seed=2, minutes=200)
    assert len(log.points) == 4 * 200 * 6
    assert sensor_log(seed=1, minutes=200, anomalies=False).anomalies == []
    for one in log.anomalies:
        assert one.start_ms - sensor_data.START_MS >= 30 * MINUTE_MS
        assert one.end_ms - one.start_ms >= 3 * MINUTE_MS


def test_the_commands_have_help() -> None:
    for command in ("feed", "check"):
        done = CliRunner().invoke(sensor_data.app, [command, "--help"])
        assert "--labels" in re.sub(r"\x1b\[[0-9;]*m", "", done.output)


@pytest.fixture
def manuals() -> Iterator[str]:
    """The manuals in a collection, by the graph of ``rag_ingest`` run here on the real servers."""
    name = f"t{uuid.uuid4().hex[:10]}"
    documents = ListSource(tuple(Record(f"manuals/{one}", manual(one)) for one in MANUALS))

    async def ingest() -> Any:
        async with http_pool() as pool:
            return await sage.flow.run(
                rag_ingest.build(RagIngest(collection=name)),
                pool=pool,
                sources={"documents": documents},
                sinks={"telemetry": ListSink()},
            )

    assert asyncio.run(ingest()).failed == []
    yield name
    sage.db.collection(name, dim=384).open().drop()


@pytest.mark.service
@pytest.mark.flink
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_the_stack_the_anomalies_have_alerts_points_and_explanations(manuals: str) -> None:
    log, name = sensor_log(seed=1, minutes=360), f"t{uuid.uuid4().hex[:10]}"
    kinds = ("points", "alerts", "explanations", "late", "dead_letters")
    topics = {kind: f"{name}.{kind}" for kind in kinds}
    write_topics(topics, log)
    local = alerts_of(run(sensor_watch.build(), messages(log)))
    opened = {one["id"] for one in local if one["state"] == "open"}

    def read(kind: str) -> list[Any]:
        return [json.loads(record.value) for record in drain(topics[kind])]

    config = SensorWatch(**topics, group=name, bucket=name, manuals=manuals, tokens_max=24)
    store = sage.tsdb.bucket(name).open()
    with FlinkRest(Settings.load().flink_url) as rest:
        job_id = sage.flow.submit(sensor_watch.build(config), name=name)
        try:
            wait_until(lambda: len(read("alerts")) >= len(local), 120, "the alerts")
            wait_until(lambda: len(read("explanations")) >= len(opened), 300, "the explanations")
            wait_until(lambda: store.count("sensor") >= 4 * 360, 60, "the points of windows")
            wait_until(lambda: store.count("alert") >= len(opened), 60, "the points of alerts")
            counts = job_balance(rest, rest.job(name), wait_s=30)
        finally:
            rest.cancel(job_id)

    alerts, explained = read("alerts"), read("explanations")
    precision, recall = precision_and_recall(alerts, log.anomalies)
    assert min(precision, recall) >= 0.9
    assert sorted(map(by_id, alerts)) == sorted(map(by_id, local))
    peaks = {by_id(one): one["peak"] for one in local}  # sums in Java differ in the last digits
    assert {by_id(one): one["peak"] for one in alerts} == pytest.approx(peaks)
    assert {one["id"] for one in explained} == opened
    assert all(one["sources"] for one in explained)
    assert any(one["answer"].strip() for one in explained)
    assert (store.count("sensor"), store.count("alert")) == (4 * 360, len(opened))
    assert read("dead_letters") == read("late") == []
    assert counts.is_balanced, counts.gaps
    for topic in topics.values():
        delete_topic(topic)


def by_id(alert: dict[str, Any]) -> tuple[str, str]:
    return alert["id"], alert["state"]


def write_topics(topics: Mapping[str, str], log: SensorLog) -> None:
    """Make the topics, with the log in that of the points."""
    for topic in topics.values():
        ensure_topic(topic)
    # A last point of another sensor, an hour later, ends all windows.
    last = {"sensor": "end", "at": log.points[-1]["at"] + 60 * MINUTE_MS, "value": 0}
    feed(topics["points"], [*log.messages, (b"end", msgspec.json.encode(last))])
