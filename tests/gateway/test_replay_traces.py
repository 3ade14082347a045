"""Traces of requests: what the recorder writes, which files can be read, and the command."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from replay_traces import HEAD, record_trace, scaling_header
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError
from sage_gateway.replay import Recorder, TraceHeader, read
from sage_gateway.replay.__main__ import Overrides, replay
from sage_gateway.scheduling import RequestHints


def test_a_trace_contains_what_a_replay_needs(tmp_path: Path) -> None:
    urgent = RequestHints("acme", 0, time.time() + 9)

    trace = record_trace(tmp_path / "t.jsonl", [(urgent, 200), (RequestHints(), 429)])

    first, second = trace.rows
    assert (first.tenant, first.priority, first.tokens, first.used) == (
        "acme",
        "interactive",
        10,
        5,
    )
    assert first.deadline_s == pytest.approx(9, abs=1)
    assert first.service_s is not None
    assert (second.status, second.service_s, second.deadline_s) == (429, None, None)
    assert trace.header.models["talk"].policy == "fifo"
    assert (tmp_path / "t.jsonl").stat().st_mode & 0o77 == 0


def test_a_sample_is_even(tmp_path: Path) -> None:
    header = TraceHeader(1, HEAD.models, sample=0.25)
    recorder = Recorder(tmp_path / "t.jsonl", header)

    recording = [recorder.start("talk", RequestHints(), 1) is not None for _ in range(12)]

    assert recording == [False, False, False, True] * 3


def test_a_full_trace_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for _ in range(3):
        trace = record_trace(path, [(RequestHints(), 200)], bytes_max=10)

    assert len(trace.rows) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.jsonl", "t.jsonl.1"]


def test_a_trace_contains_the_scaling(tmp_path: Path) -> None:
    trace = record_trace(tmp_path / "t.jsonl", [(RequestHints(), 200)], scaling_header(max=3))

    assert trace.header == scaling_header(max=3)
    assert [one.replicas_max for one in replay(trace, "fifo", Overrides(scaling=True))] == [1]


@pytest.mark.parametrize("text", ["", "{}\n", '{"sage_pool_trace": 9, "models": {}}\n', "x\n"])
def test_a_file_that_is_not_a_trace_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)

    with pytest.raises(ConfigError, match="trace"):
        read(path)


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    record_trace(path, [(RequestHints(), 200), (RequestHints(), 200)])
    path.write_bytes(path.read_bytes()[:-5])

    assert len(read(path).rows) == 1


def sage(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["pool", "replay", *words], env={"COLUMNS": "120"})


def test_the_command_shows_both_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    record_trace(path, [(RequestHints("a"), 200), (RequestHints("b", 0), 200)])

    table = sage(str(path), "--policy", "slo", "--concurrency", "1").output
    figures = json.loads(sage(str(path), "--policy", "priority", "--json").output)

    assert "fifo" in table
    assert "slo" in table
    assert "interactive" in table
    assert [(one["model"], one["policy"]) for one in figures] == [
        ("talk", "fifo"),
        ("talk", "priority"),
    ]


def test_the_command_reports_errors(tmp_path: Path) -> None:
    found = sage(str(tmp_path / "none.jsonl"), "--policy", "slo")

    assert found.exit_code != 0
    assert isinstance(found.exception, ConfigError)
