"""The job points of sensors -> windows -> anomalies -> alerts -> explanations by the model.

A point is JSON: ``{"sensor": "pump-1", "at": 1700000000000, "value": 20.5}``. Windows are
aggregated in the JVM. The mean of a window is scored against those of the same sensor before it
(robust z-score), and scores open and close alerts. Each window is a point in InfluxDB; so is each
alert, at the time at which it opened, and its close overwrites it.

An alert is in its topic before the model is asked: it waits for no model, and one that fails costs
the explanation only. The model is asked once for each alert that opens, and never for a calm
window; what it says of the alert of ``id`` is in the topic of explanations, with its sources in the
collection of manuals.

``sensor_data.py`` makes points with known anomalies, and manuals. Run by ``sage jobs submit
sensor_watch`` or ``flink run -py sensor_watch.py``.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import sage_flink as sage
from sage_connectors import Json, kafka
from sage_flink.common import Record
from sage_flink.common.values import require_field
from sage_flink.flow import Count, Max, Mean, Min, Tumbling
from sage_flink.flow.stateful.aggregates import Aggregate
from sage_flink.operators import Alerts, AnswerWithSources, RagPrompt, RobustZScore, Where
from sage_jobs.entry import report_errors, run

INSTRUCTIONS = (
    "You explain alerts of sensors to an operator. Use only the context, which is from manuals. "
    "Name the likely cause and what to do, in one to three sentences."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorWatch:
    """Topics, stores, limits and model of the job.

    A window is anomalous where its score, in standard deviations, is above ``open_above`` in size;
    an alert opens with the ``for_points``-th such window in a row, and closes below
    ``close_below``.
    """

    points: str = "points"
    alerts: str = "alerts"
    explanations: str = "explanations"
    late: str = "{job}.late"
    dead_letters: str = "{job}.dead-letters"
    group: str = "{job}"
    bucket: str = "sensors"
    manuals: str = "manuals"
    model: str = "smollm2"
    window_s: float = 60.0
    out_of_order_s: float = 10.0
    idle_s: float = 60.0
    history: int = 60
    history_min: int = 30
    open_above: float = 5.0
    close_below: float = 2.5
    critical_above: float = 20.0
    for_points: int = 2
    top_k: int = 3
    tokens_max: int = 120


@dataclass(frozen=True, slots=True)
class AlertQuestion:
    """An alert with ``question`` and ``messages``, for retrieval and a prompt."""

    def __call__(self, record: Record) -> dict[str, Any]:
        """The alert with its question."""
        sensor, mean = require_field(record, "key", str), require_field(record, "mean", float)
        score = require_field(record, "value", float)
        where = "above" if score > 0 else "below"
        question = (
            f"Sensor {sensor} reports {mean:.6g}, {abs(score):.3g} standard deviations {where} "
            f"what is usual for {sensor}. What is the likely cause, and what should be done?"
        )
        return {**record.value, "question": question, "messages": []}


@dataclass(frozen=True, slots=True)
class WindowPoint:
    """A scored window as a point of ``sensor``, at the start of the window."""

    def __call__(self, record: Record) -> dict[str, Any]:
        """The point."""
        value = record.value
        return {
            "measurement": "sensor",
            "tags": {"sensor": value["key"]},
            "fields": {name: value[name] for name in ("mean", "least", "most", "points", "score")},
            "timestamp_ns": value["start_ms"] * 1_000_000,
        }


@dataclass(frozen=True, slots=True)
class AlertPoint:
    """An alert as a point of ``alert``, at the time at which it opened: its last state."""

    def __call__(self, record: Record) -> dict[str, Any]:
        """The point."""
        value = record.value
        return {
            "measurement": "alert",
            "tags": {"sensor": value["key"]},
            "fields": {
                name: value[name]
                for name in ("id", "state", "severity", "peak", "points", "closed_at_ms")
                if value[name] is not None
            },
            "timestamp_ns": value["opened_at_ms"] * 1_000_000,
        }


def build(config: SensorWatch | None = None) -> sage.flow.Graph:
    """The graph; does not contact any server."""
    config = config or SensorWatch()
    windows = _windows(config)
    detector = RobustZScore("mean", history=config.history, history_min=config.history_min)
    scored = windows.fold("score", detector, initial=None)
    limits = Alerts(
        "score",
        config.open_above,
        config.close_below,
        for_points=config.for_points,
        critical_above=config.critical_above,
        absolute=True,
        keep=("mean", "start_ms", "end_ms"),
    )
    alerts = scored.fold("alert", limits, initial=None)
    bucket = sage.tsdb.bucket(config.bucket, integers=("points", "closed_at_ms"))
    return sage.flow.pipeline(
        alerts.write("alerts", kafka(config.alerts, format=Json())),
        _explanations(alerts, config).write(
            "explanations", kafka(config.explanations, format=Json())
        ),
        scored.map("window-point", WindowPoint()).write("window-points", bucket),
        alerts.map("alert-point", AlertPoint()).write("alert-points", bucket),
        windows.late("late").write("late-points", kafka(config.late, format=Json())),
    ).dead_letters_to(kafka(config.dead_letters))


def _windows(config: SensorWatch) -> sage.flow.Stream:
    points = kafka(config.points, group=config.group, format=Json())
    aggregates: dict[str, Aggregate] = {
        "points": Count("value"),
        "mean": Mean("value"),
        "least": Min("value"),
        "most": Max("value"),
    }
    return (
        sage.flow.read("points", points)
        .event_time("time", field="at", out_of_order_s=config.out_of_order_s, idle_s=config.idle_s)
        .key_by("by-sensor", "sensor")
        .window("windows", Tumbling(config.window_s), aggregates)
    )


def _explanations(alerts: sage.flow.Stream, config: SensorWatch) -> sage.flow.Stream:
    manuals = sage.retrieve(collection=config.manuals, top_k=config.top_k)
    chat = sage.chat(model=config.model, tokens_max=config.tokens_max, stop=("\n\n",))
    return (
        alerts.filter("opened", Where("state", "open"))
        .map("question", AlertQuestion())
        .call("retrieve", manuals, capacity=16, timeout_s=30)
        .flat_map("prompt", RagPrompt(INSTRUCTIONS))
        .call("explain", chat, capacity=4, timeout_s=300)
        .flat_map("explanation", AnswerWithSources())
    )


def main(
    points: str = "points",
    alerts: str = "alerts",
    explanations: str = "explanations",
    bucket: str = "sensors",
    manuals: str = "manuals",
    window_s: float = 60.0,
    out_of_order_s: float = 10.0,
    idle_s: float = 60.0,
    name: str = "sensor_watch",
    options: "sage.flow.FlinkOptions | None" = None,
) -> None:
    """Submit the job."""
    config = dataclasses.replace(
        SensorWatch(),
        points=points,
        alerts=alerts,
        explanations=explanations,
        bucket=bucket,
        manuals=manuals,
        window_s=window_s,
        out_of_order_s=out_of_order_s,
        idle_s=idle_s,
    )
    print(sage.flow.submit(build(config), name=name, options=options))


if __name__ == "__main__":
    with report_errors("sensor_watch"):
        run(main)
