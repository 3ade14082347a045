"""Made-up points of sensors with known anomalies, and manuals, for ``sensor_watch``.

    python -m sage_jobs.sensor_data feed --labels labels.json   # points and manuals into topics
    python -m sage_jobs.sensor_data check --labels labels.json  # precision, recall of the alerts

The manuals go to the topic of a ``rag_ingest --collection manuals``. The same seed makes the same
points. A sensor has a level, noise and a daily cycle; an anomaly is a spike of minutes, a shift of
the level, or a ramp. There is none in the first hour of a sensor, nor in the 75 minutes behind one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import msgspec
import typer

from sage_connectors.kafka_client import drain, feed
from sage_jobs.entry import report_errors

#: 2024-01-01T00:00:00Z.
START_MS = 1_704_067_200_000
MINUTE_MS = 60_000
EVERY_MS = 10_000
#: Before the first anomaly, and between two of a sensor.
QUIET_FIRST, QUIET_BETWEEN = 60, 75
#: How long an anomaly of a kind is, in minutes.
MINUTES = {"spike": (3, 4), "shift": (6, 15), "ramp": (8, 15)}
MANUALS = {
    "pump": "A pump whose temperature rises quickly has lost its coolant or runs dry. Stop the "
    "pump, open valve V2, and refill the coolant. A temperature that falls means that it stands "
    "still: check its fuse.",
    "boiler": "A boiler whose pressure rises has a blocked relief valve. Shut the burner down and "
    "clean the relief valve. A pressure that falls points to a leak: close the feed line.",
    "fan": "A fan that vibrates more than usual has a worn bearing. Slow it down, and replace the "
    "bearing within a day. Less vibration than usual means a slipping belt.",
    "tank": "The level of a tank that rises unexpectedly has an inlet valve that does not close. "
    "Close the inlet by hand. A level that falls is a leak or an open drain.",
}

app = typer.Typer(add_completion=False, help="Points with known anomalies, for sensor_watch.")
Labels = Annotated[Path, typer.Option(help="The file of the anomalies.")]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A label: the points of ``sensor`` from ``start_ms`` until before ``end_ms``."""

    sensor: str
    kind: str
    start_ms: int
    end_ms: int
    #: How far off the values are, in standard deviations of the noise; a ramp at its end.
    size: float


@dataclass(frozen=True, slots=True)
class SensorLog:
    """Points in the order of their arrival, and the anomalies in them."""

    points: list[dict[str, Any]]
    anomalies: list[Anomaly]

    @property
    def messages(self) -> list[tuple[bytes, bytes]]:
        """Key and value of the points' Kafka messages; the key is the sensor."""
        return [(p["sensor"].encode(), msgspec.json.encode(p)) for p in self.points]


def sensor_log(
    *,
    seed: int = 0,
    sensors: int = 4,
    minutes: int = 720,
    anomalies: bool = True,
    out_of_order_s: float = 5.0,
) -> SensorLog:
    """A point every 10 s of each sensor; none is later than ``out_of_order_s``."""
    random = Random(seed)  # noqa: S311 - made-up data
    names = [f"{list(MANUALS)[n % len(MANUALS)]}-{n + 1}" for n in range(sensors)]
    labels = [one for name in names for one in _anomalies(name, minutes, random)]
    labels = labels if anomalies else []
    arrivals: list[tuple[float, dict[str, Any]]] = []
    for name in names:
        level, noise = random.uniform(20, 80), random.uniform(0.2, 2)
        own = [one for one in labels if one.sensor == name]
        for at in range(START_MS, START_MS + minutes * MINUTE_MS, EVERY_MS):
            cycle = 2 * math.sin(2 * math.pi * (at - START_MS) / (1440 * MINUTE_MS))
            off = sum(_offset(one, at) for one in own)
            value = level + noise * (cycle + random.gauss(0, 1) + off)
            point = {"sensor": name, "at": at, "value": round(value, 4)}
            arrivals.append((at + random.uniform(0, out_of_order_s * 1000), point))
    arrivals.sort(key=lambda arrival: arrival[0])
    return SensorLog([point for _, point in arrivals], labels)


def precision_and_recall(
    alerts: Sequence[Mapping[str, Any]], anomalies: Sequence[Anomaly]
) -> tuple[float, float]:
    """The share of alerts that are of an anomaly, and of anomalies that have an alert.

    An alert is of an anomaly of its sensor where their times overlap; it lasts from
    ``above_since_ms`` until it closes, or opens if it is still open. Both are 1 where there is
    nothing to find and nothing is found.
    """
    spans: dict[str, tuple[str, int, int]] = {}
    for one in alerts:
        end = one["closed_at_ms"] or one["opened_at_ms"]
        before = spans.get(one["id"], (one["key"], one["above_since_ms"], end))
        spans[one["id"]] = (one["key"], one["above_since_ms"], max(before[2], end))
    pairs = {
        (id_, anomaly)
        for id_, (sensor, start, end) in spans.items()
        for anomaly in anomalies
        if anomaly.sensor == sensor and start < anomaly.end_ms and anomaly.start_ms < end
    }
    right, found = {id_ for id_, _ in pairs}, {anomaly for _, anomaly in pairs}
    nothing = float(not anomalies and not spans)
    precision = len(right) / len(spans) if spans else nothing
    return precision, len(found) / len(anomalies) if anomalies else nothing


def _anomalies(sensor: str, minutes: int, random: Random) -> list[Anomaly]:
    made: list[Anomaly] = []
    minute = QUIET_FIRST + random.randrange(QUIET_BETWEEN)
    while True:
        kind = random.choice(list(MINUTES))
        long = random.randint(*MINUTES[kind])
        if minute + long + QUIET_BETWEEN // 2 > minutes:
            return made
        start_ms = START_MS + minute * MINUTE_MS + random.randrange(6) * EVERY_MS
        size = random.choice((-1, 1)) * random.uniform(8, 20)
        made.append(Anomaly(sensor, kind, start_ms, start_ms + long * MINUTE_MS, size))
        minute += long + QUIET_BETWEEN + random.randrange(QUIET_BETWEEN)


def _offset(anomaly: Anomaly, at: int) -> float:
    if not anomaly.start_ms <= at < anomaly.end_ms:
        return 0.0
    share = (at - anomaly.start_ms) / (anomaly.end_ms - anomaly.start_ms)
    return anomaly.size * (share if anomaly.kind == "ramp" else 1)


@app.command("feed")
def feed_topics(
    labels: Labels,
    points: Annotated[str, typer.Option(help="Topic of the points.")] = "points",
    documents: Annotated[str, typer.Option(help="Topic of the manuals.")] = "documents",
    seed: int = 0,
    sensors: Annotated[int, typer.Option(min=1)] = 4,
    minutes: Annotated[int, typer.Option(min=1)] = 720,
) -> None:
    """Write points and manuals into topics, and the anomalies into a file."""
    log = sensor_log(seed=seed, sensors=sensors, minutes=minutes)
    labels.write_bytes(msgspec.json.encode(log.anomalies))
    manuals = [(name.encode(), manual(name)) for name in MANUALS]
    fed = feed(documents, manuals), feed(points, log.messages)
    print(f"{fed[1]} points, {fed[0]} manuals, {len(log.anomalies)} anomalies in {labels}")


@app.command("check")
def check_alerts(
    labels: Labels,
    alerts: Annotated[str, typer.Option(help="Topic of the alerts.")] = "alerts",
) -> None:
    """Print precision and recall of the alerts in a topic."""
    anomalies = msgspec.json.decode(labels.read_bytes(), type=list[Anomaly])
    found = [msgspec.json.decode(record.value) for record in drain(alerts)]
    precision, recall = precision_and_recall(found, anomalies)
    print(f"precision {precision:.3f}, recall {recall:.3f}, {len(anomalies)} anomalies")


def manual(name: str) -> bytes:
    """The message of a manual, as ``rag_ingest`` reads it."""
    document = {"id": f"manual/{name}", "title": f"Manual of the {name}", "text": MANUALS[name]}
    return msgspec.json.encode(document)


if __name__ == "__main__":
    with report_errors("sensor_data"):
        app()
