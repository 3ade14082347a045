"""A topic recorded and replayed by the command line, with a real broker."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from secured_broker import secured_broker
from typer.testing import CliRunner
from waiting import wait_until

from sage_connectors.kafka_client import ensure_topic, feed, open_consumer, partitions_of
from sage_connectors.recording_file import RecordedMessage, RecordingReader
from sage_connectors.topic_recording import record
from sage_flink import cli
from sage_flink.common import ConfigError, SageError, StoreUnavailable

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
PARTITIONS = 3
START_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with secured_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running.server("OPEN")


@pytest.fixture(autouse=True)
def own_kafka(servers, monkeypatch):
    monkeypatch.setenv("SAGE_KAFKA_SERVERS", servers)


@pytest.fixture
def topic(servers) -> str:
    name = f"t-{uuid.uuid4().hex}"
    ensure_topic(name, PARTITIONS, servers)
    return name


def sage(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli.app, ["topics", *words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words: str) -> str:
    result = CliRunner().invoke(cli.app, ["topics", *words])
    assert isinstance(result.exception, SageError), result.output
    return str(result.exception)


def raw(topic: str, servers: str) -> list[Any]:
    """All messages of the topic as they are stored, by partition and offset."""
    found: list[Any] = []
    with open_consumer(servers, read_committed=True) as consumer:
        partitions = partitions_of(consumer, topic)
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        while any(consumer.position(p) < end for p, end in ends.items()):
            for batch in consumer.poll(timeout_ms=200).values():
                found += batch
    return sorted(found, key=lambda message: (message.partition, message.offset))


def contents(messages: list[Any]) -> list[tuple[Any, ...]]:
    return [(m.partition, m.timestamp, m.key, m.value, tuple(m.headers)) for m in messages]


def odd_messages(count: int) -> Iterator[Any]:
    """Binary keys, tombstones, repeated and empty headers, out-of-order times, every partition."""
    for n in range(count):
        headers = (("a", b"1"), ("a", b"\xff"), ("b", b"")) if n % 4 == 0 else ()
        key = b"\xfe%d" % n if n % 2 else None
        value = b"\x00%d" % n if n % 6 != 1 else None
        late_ms = 5_000 if n % 7 == 0 else 0
        yield key, value, headers, START_MS + n * 10 - late_ms, n % 3


def test_a_replayed_topic_has_the_same_messages_in_the_same_partitions(topic, servers, tmp_path):
    feed(topic, odd_messages(500), servers)
    file, copy = tmp_path / "t.rec.gz", f"{topic}-copy"

    made = sage("record", topic, str(file), "--from-beginning", "--count", "500")
    replayed = sage("replay", str(file), copy, "--as-fast-as-possible")

    assert made["messages"] == replayed["messages"] == 500
    assert contents(raw(copy, servers)) == contents(raw(topic, servers))
    assert replayed["complete"]


@pytest.mark.parametrize(
    ("starts_ms", "count"),
    [
        pytest.param([0, 0, 0], 6_000, id="at the same time"),
        pytest.param([90_000, 30_000, 0], 25_000, id="one after the other"),
    ],
)
def test_messages_that_were_there_are_recorded_by_time_over_the_partitions(
    starts_ms, count, topic, servers, tmp_path
):
    for partition, start_ms in enumerate(starts_ms):
        times = range(START_MS + start_ms, START_MS + start_ms + count)
        feed(topic, [(None, b"x", None, ms, partition) for ms in times], servers)

    made = sage("record", topic, str(tmp_path / "f"), "--from-beginning", "--count", str(3 * count))

    assert made["messages"] == 3 * count
    with RecordingReader(tmp_path / "f") as reader:
        messages: list[RecordedMessage] = list(reader)
    assert all(a.arrival_us <= b.arrival_us for a, b in pairwise(messages))
    assert all(message.arrival_us == message.timestamp_ms * 1000 for message in messages)
    for partition in range(PARTITIONS):
        offsets = [m.offset for m in messages if m.partition == partition]
        assert offsets == list(range(count))


def test_a_time_in_the_future_or_the_past_makes_no_gap(topic, servers, tmp_path):
    now_ms = int(time.time() * 1000)
    times = [now_ms - 3_000, now_ms + 1_700_000, now_ms - 86_400_000, now_ms - 2_000]
    feed(topic, [(None, b"x", None, ms, 0) for ms in times], servers)

    sage("record", topic, str(tmp_path / "f"), "--from-beginning", "--count", "4")
    replayed = sage("replay", str(tmp_path / "f"), f"{topic}-copy")

    assert 2.5 < replayed["seconds"] < 20
    assert [m.timestamp for m in raw(f"{topic}-copy", servers)] == times


@pytest.mark.parametrize(("speed", "at_least_s", "at_most_s"), [(1, 1.9, 2.6), (4, 0.45, 1.2)])
def test_a_replay_keeps_the_gaps_divided_by_the_speed(
    speed, at_least_s, at_most_s, topic, servers, tmp_path
):
    gaps_ms = [0, 200, 0, 1_000, 300, 500]
    at, times = int(time.time() * 1000) - 60_000, []
    for gap in gaps_ms:
        times.append(at := at + gap)
    feed(topic, [(None, b"x", None, ms, 0) for ms in times], servers)
    sage("record", topic, str(tmp_path / "f"), "--from-beginning", "--count", "6")
    started_ms = time.time() * 1000

    replayed = sage(
        "replay", str(tmp_path / "f"), f"{topic}-copy", "--speed", str(speed), "--shift-to-now"
    )

    assert replayed["seconds"] >= at_least_s
    assert replayed["seconds"] - replayed["behind_s_max"] < at_most_s + 5  # the topic is created
    shifted = [m.timestamp for m in raw(f"{topic}-copy", servers)]
    assert [b - a for a, b in pairwise(shifted)] == gaps_ms[1:]
    assert 0 <= shifted[0] - started_ms < 30_000


def recorder(topic: str, file: Path, servers: str, *words: str) -> subprocess.Popen[str]:
    program = str(Path(sys.executable).with_name("sage"))
    command = [program, "topics", "record", topic, str(file), *words]
    return subprocess.Popen(
        command,
        env={**os.environ, "SAGE_KAFKA_SERVERS": servers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def values_in(file: Path) -> list[bytes | None]:
    """The values in a recording that may still grow, or not have its head yet."""
    try:
        with RecordingReader(file) as reader:
            return [message.value for message in reader]
    except ConfigError:
        return []


@pytest.mark.parametrize(("end", "is_complete"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_a_recorder_that_is_interrupted_or_killed_keeps_what_it_has(
    end, is_complete, topic, servers, tmp_path
):
    file = tmp_path / "f"
    process = recorder(topic, file, servers, "--json")
    wait_until(file.exists, 60, "the recording")
    started_us = time.time_ns() // 1000
    feed(topic, [(None, b"0", None, START_MS, 0)], servers)
    wait_until(lambda: values_in(file) == [b"0"], 60, "the first message in the file")
    between_us = time.time_ns() // 1000
    for n in range(1, 5):
        feed(topic, [(None, b"%d" % n, None, START_MS, 0)], servers)
    wait_until(lambda: len(values_in(file)) == 5, 60, "every message in the file")
    process.send_signal(end)
    out, _ = process.communicate(timeout=30)

    with RecordingReader(file) as reader:
        messages = list(reader)
    assert [message.value for message in messages] == [b"0", b"1", b"2", b"3", b"4"]
    assert reader.complete is is_complete
    arrivals_us = [message.arrival_us for message in messages]
    assert arrivals_us == sorted(arrivals_us)
    assert started_us <= arrivals_us[0] <= between_us <= arrivals_us[1]
    if is_complete:
        assert process.returncode == 0
        assert json.loads(out)["messages"] == 5
    else:
        replayed = sage("replay", str(file), f"{topic}-copy", "--as-fast-as-possible")
        assert (replayed["messages"], replayed["complete"]) == (5, False)


def test_while_the_broker_is_away_the_recorder_waits_and_keeps_what_it_has(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    with secured_broker(folder) as broker:
        servers = broker.server("OPEN")
        ensure_topic("t", 1, servers)
        feed("t", [(None, b"x", None, START_MS, 0)], servers)
        process = recorder("t", tmp_path / "f", servers, "--from-beginning", "--for", "300s")
        wait_until(lambda: values_in(tmp_path / "f") == [b"x"], 60, "the message in the file")
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    with RecordingReader(tmp_path / "f") as reader:
        assert [message.value for message in reader] == [b"x"]
    with pytest.raises(StoreUnavailable):
        record("t", tmp_path / "g", servers)


def test_errors_say_what_to_do(topic, servers, tmp_path):
    file, text = tmp_path / "f", tmp_path / "text"
    text.write_text("no recording")
    sage("record", topic, str(file), "--for", "0.5s")

    assert "exists; give another name" in refused("record", topic, str(file))
    assert "no topic 'absent'" in refused("record", "absent", str(tmp_path / "g"))
    assert not (tmp_path / "g").exists()
    assert "--for must be such as 60s" in refused("record", topic, str(file), "--for", "60")
    assert "is not a recording" in refused("replay", str(text), topic)
    assert "cannot be read: No such file" in refused("replay", str(tmp_path / "no"), topic)
    assert "--speed must be more than 0" in refused("replay", str(file), topic, "--speed", "0")
    ensure_topic(f"{topic}-narrow", 1, servers)
    assert "has 1 partitions, the recorded one 3" in refused("replay", str(file), f"{topic}-narrow")


def test_a_topic_without_messages_says_how_to_record_those_that_are_there(topic, tmp_path):
    result = CliRunner().invoke(
        cli.app, ["topics", "record", topic, str(tmp_path / "f"), "--for", "0.5s"]
    )

    assert "no message arrived; --from-beginning records" in result.output


@pytest.mark.parametrize("command", ["record", "replay"])
def test_help_names_every_option(command):
    result = CliRunner().invoke(cli.app, ["topics", command, "--help"], env={"COLUMNS": "120"})

    shared = ["--connection", "--json"]
    own = {
        "record": ["--for", "--count", "--from-beginning"],
        "replay": ["--speed", "--as-fast-as-possible", "--shift-to-now"],
    }
    assert all(option in result.output for option in [*own[command], *shared])
