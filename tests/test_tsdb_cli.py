"""``sage tsdb``: what it lists, queries and exports, on the stack's InfluxDB."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas
import pytest
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.cli.tsdb import duration_ns, time_ns
from sage_flink.common import ConfigError, NotFound, Rejected
from sage_flink.tsdb import Point, bucket

BUCKET, MINUTE = "conformance", 60 * 10**9
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
RANGE = ("--since", "2026-01-31T12:00Z", "--until", "2026-01-31T12:05:00+00:00")


def points_of(measurement: str) -> list[Point]:
    start_ns = int(START.timestamp()) * 10**9
    return [
        Point(measurement, {"host": host}, {"ms": n + 0.5, "ok": n != 2}, start_ns + n * MINUTE)
        for n in (0, 1, 2, 4)
        for host in ("a", "b")
    ]


def sage(*words: str) -> str:
    done = CliRunner().invoke(cli.app, ["tsdb", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def measurement() -> Iterator[str]:
    name = f"m{uuid.uuid4().hex[:12]}"
    store = bucket(BUCKET).open()
    assert not store.append(points_of(name))
    yield name
    store.drop(name)  # type: ignore[attr-defined]
    store.close()


@pytest.mark.service
def test_measurements_are_listed_with_their_fields(measurement: str) -> None:
    listed = json.loads(sage("ls", BUCKET, "--json"))

    (own,) = [one for one in listed if one["measurement"] == measurement]
    assert own == {
        "measurement": measurement,
        "points": 8,
        "fields": {"ms": "float", "ok": "bool"},
    }
    assert "ms float, ok bool" in sage("ls", BUCKET)


@pytest.mark.service
def test_points_are_shown_by_time(measurement: str) -> None:
    shown = sage("query", BUCKET, measurement, *RANGE, "--tag", "host=b", "--limit", "2")

    assert "2026-01-31 12:01:00  host=b  ms=1.5 ok=True" in shown
    assert "12:02:00" not in shown
    found = json.loads(sage("query", BUCKET, measurement, *RANGE, "--json"))
    assert len(found) == 8


@pytest.mark.service
def test_aggregates_are_shown_in_windows_and_groups(measurement: str) -> None:
    ask = ["query", BUCKET, measurement, "ms", "-f", "mean", "-f", "p50", *RANGE]

    (whole,) = json.loads(sage(*ask, "--json"))
    assert whole["values"] == {"mean": 2.25, "p50": 2.0}
    windows = json.loads(sage(*ask, "--every", "1m", "--by", "host", "--fill", "linear", "--json"))
    assert [one["values"]["mean"] for one in windows if one["tags"] == {"host": "a"}] == [
        *[0.5, 1.5, 2.5, 3.5, 4.5],
    ]
    shown = sage(*ask, "--every", "2m", "--by", "host")
    assert "window" in shown
    assert "2026-01-31 12:04:00  a      4.5" in " ".join(shown.splitlines())


@pytest.mark.service
def test_sessions_are_shown_with_their_start_and_end(measurement: str) -> None:
    ask = ["query", BUCKET, measurement, "ms", "-f", "rate", "-f", "count", *RANGE, "--session"]
    start_ns = int(START.timestamp()) * 10**9

    sessions = json.loads(sage(*ask, "1m", "--json"))
    assert sessions == [
        {
            "tags": {},
            "start_ns": start_ns,
            "values": {"rate": 1 / 30, "count": 6},
            "end_ns": start_ns + 3 * MINUTE,
        },
        {
            "tags": {},
            "start_ns": start_ns + 4 * MINUTE,
            "values": {"rate": None, "count": 2},
            "end_ns": start_ns + 5 * MINUTE,
        },
    ]
    shown = " ".join(sage(*ask, "1m", "--by", "host").split())
    assert "session until host rate count" in shown
    assert "2026-01-31 12:00:00 2026-01-31 12:03:00 a 0.0166667 3" in shown


@pytest.mark.service
def test_windows_overlap_with_a_period(measurement: str) -> None:
    ask = ["query", BUCKET, measurement, "ms", "-f", "sum", *RANGE, "--tag", "host=a", "--json"]

    found = json.loads(sage(*ask, "--every", "1m", "--period", "2m", "--fill", "zero"))

    assert [one["values"]["sum"] for one in found] == [0.5, 2.0, 4.0, 2.5, 4.5, 4.5]
    assert set(found[0]) == {"tags", "start_ns", "values"}


@pytest.mark.service
def test_a_field_is_drawn_in_the_terminal_and_as_a_picture(
    measurement: str, tmp_path: Path
) -> None:
    ask = ["plot", BUCKET, measurement, "ms", *RANGE, "--by", "host"]

    drawn = sage(*ask)
    for text in ("mean of ms", "12:00:00", "12:04:00", "4.5", "host=a", "host=b"):
        assert text in drawn
    assert max(map(len, drawn.splitlines())) <= 80

    for ending, first in {"png": b"\x89PNG", "svg": b"<?xml"}.items():
        file = tmp_path / f"plot.{ending}"
        assert "plot in" in sage(*ask, "--to", str(file))
        assert file.read_bytes().startswith(first)
    assert "no points in this range" in sage("plot", BUCKET, measurement, "ms", "--since", "1s")


@pytest.mark.service
def test_a_task_is_made_listed_and_deleted(measurement: str) -> None:
    target = f"downsampled_{measurement}"
    words = ["put", BUCKET, measurement, "ms", target, "-f", "mean", "--every", "1m"]
    words = ["tasks", *words, "--by", "host", "--since", "2026-01-31T12:00Z"]
    try:
        made = " ".join(sage(*words).split())
        again = sage(*words)
        listed = json.loads(sage("tasks", "ls", BUCKET, "--json"))
        shown = sage("tasks", "ls", BUCKET)
        deleted = sage("tasks", "delete", BUCKET, f"{measurement} ms 1m")
        found = sage("query", target, measurement, "--since", "2026-01-31T12:00Z")
        kept = [sage("retention", target, *keep) for keep in ([], ["30d"], ["30d"], ["forever"])]
    finally:
        store = bucket(target).open()
        buckets = store.client.buckets_api()  # type: ignore[attr-defined]
        buckets.delete_bucket(buckets.find_bucket_by_name(target))
        store.close()

    does = f"mean of ms of {measurement}, by host, every 60 s, into {target}"
    assert made == f"task {measurement} ms 1m: {does}"
    assert "as before" in again
    assert [one["description"] for one in listed if one["name"].startswith(measurement)] == [does]
    assert "active" in shown
    assert "is deleted" in deleted
    assert "2026-01-31 12:04:00 host=b ms_mean=4.5" in " ".join(found.split())
    assert [" ".join(line.split()) for line in kept] == [
        f"{target} keeps points forever",
        f"{target} keeps points for 30d",
        f"{target} keeps points for 30d",
        f"{target} keeps points forever",
    ]


@pytest.mark.service
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_points_are_exported_with_a_column_for_each_tag_and_field(
    measurement: str, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"points.{ending}"

    assert "8 points in" in sage("export", BUCKET, measurement, str(file))

    frame = pandas.read_parquet(file) if ending == "parquet" else pandas.read_csv(file)
    assert list(frame.columns) == ["time", "host", "ms", "ok"]
    assert frame["ms"].sum() == 18
    assert pandas.to_datetime(frame["time"], utc=True).max() == START + timedelta(minutes=4)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.service
@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("ls", "nope"), NotFound, "no bucket 'nope'"),
        (("query", BUCKET, "m", "-f", "mean"), ConfigError, "needs a field"),
        (("query", BUCKET, "m", "ms"), ConfigError, "need a --function"),
        (("query", BUCKET, "m", "ms", "-f", "avg"), Rejected, "no function 'avg'"),
        (("query", BUCKET, "m", "--since", "soon"), ConfigError, "'soon' is neither"),
        (("query", BUCKET, "m", "--tag", "a"), ConfigError, "must be NAME=VALUE, got 'a'"),
        (
            ("query", BUCKET, "m", "ms", "-f", "mean", "--fill", "zero"),
            ConfigError,
            "with --every",
        ),
        (("query", BUCKET, "m", "--session", "1m"), ConfigError, "--session, --by and --fill need"),
        (
            ("query", BUCKET, "m", "ms", "-f", "mean", "--every", "1m", "--session", "1m"),
            Rejected,
            "give every_ns or session_gap_ns",
        ),
        (("query", BUCKET, "m", "--until", "2h"), ConfigError, "is not before --until '2h'"),
        (("tasks", "delete", BUCKET, "nope"), NotFound, "no task 'nope' of bucket"),
        (
            ("tasks", "put", BUCKET, "m", "ms", "t", "-f", "rate", "--every", "1m"),
            Rejected,
            "no task has a rate",
        ),
        (("retention", BUCKET, "5m"), Rejected, "at least 3600 s, an hour, got 300"),
        (("plot", BUCKET, "m", "ms", "-f", "avg"), Rejected, "no function 'avg'"),
        (("export", BUCKET, "m", "points.xls"), ConfigError, "must end with .parquet or .csv"),
    ],
)
def test_a_wrong_command_is_an_error_that_says_what_to_do(words, error, message: str) -> None:
    done = CliRunner().invoke(cli.app, ["tsdb", *words])

    assert isinstance(done.exception, error), done.exception
    assert message in str(done.exception)


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [("500ms", 5 * 10**8), ("90s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("7d", 604800 * 10**9)],
)
def test_a_duration(text: str, expected_ns: int) -> None:
    assert duration_ns(text) == expected_ns


@pytest.mark.parametrize("text", ["5", "m", "0s", "-5m", "5 m", "1y"])
def test_a_text_that_is_no_duration_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="is no duration such as 500ms"):
        duration_ns(text)


def test_a_time_without_a_zone_is_utc() -> None:
    assert time_ns("2026-01-31") == time_ns("2026-01-31T01:00+01:00") == 1769817600 * 10**9
    assert time_ns("1969-12-31T23:59:59.5") == -5 * 10**8
