"""B4, B5 and B9 without timing goals: workloads, figures and headlines."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import wait_until

from benchmark_sage import b5_routing, b9_contention
from benchmark_sage.b4_gateway import CLOSED
from benchmark_sage.b4_headline import Rows, headline
from benchmark_sage.b5_workload import TURNS, figures, shared_prefixes, unrelated_prompts
from benchmark_sage.b9_workload import CAPACITY, SOURCES, arrivals
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.peers.litellm_proxy import settings
from benchmark_sage.replay import PlannedRequest, RequestResult, replay_plan
from sage_flink.common import ConfigError, sage_home


def rows(**ms: float) -> list[dict[str, Any]]:
    return [ms]


def test_the_headline_of_b4_is_differences_to_the_direct_path_and_ratios_to_peers() -> None:
    one, peak = "whole, 0 ms, c=1", "whole, 0 ms, c=32"
    kept = Rows(
        {
            "direct": {one: rows(p50_ms=0.2)},
            "sage": {
                one: rows(p50_ms=0.5, requests_per_s=900.0),
                peak: rows(requests_per_s=4000.0),
                "half load": rows(p99_ms=3.0),
                "half load, direct": rows(p99_ms=1.0),
                "1000 streams": rows(rss_mib_peak=110.0),
            },
            "vllm-router": {peak: rows(requests_per_s=5000.0)},
            "litellm": {"error": rows(error="not there")},  # type: ignore[arg-type]
        }
    )

    found = {h.metric: h.value for h in headline(kept)}

    assert found == {
        "added p50, c=1": 0.3,
        "most requests/s over vllm-router's": 0.8,
        "added p99 at half load": 2.0,
        "memory at 1,000 open streams": 110.0,
    }


def test_b4_covers_1_to_256_clients_with_and_without_streaming_at_both_latencies() -> None:
    names = [arm.name for arm in CLOSED]

    assert len(set(names)) == len(names)
    assert {arm.clients for arm in CLOSED} >= {1, 32, 256}
    assert {(arm.stream, arm.latency != "none") for arm in CLOSED} == {
        (stream, late) for stream in (True, False) for late in (True, False)
    }


def test_a_conversation_repeats_all_earlier_messages_and_the_control_shares_no_prefix() -> None:
    turns = shared_prefixes(2.0, "a")
    alone = unrelated_prompts(2.0, "a")

    assert len(turns) % TURNS == 0
    for number, turn in enumerate(turns):
        if number % TURNS:
            before = turns[number - 1]
            assert turn.after == number - 1
            assert turn.messages[: len(before.messages)] == before.messages
    starts = [turn.messages[0]["content"][:200] for turn in alone]
    assert len(set(starts)) == len(starts)
    assert [t.messages for t in shared_prefixes(2.0, "a")] == [t.messages for t in turns]
    assert shared_prefixes(2.0, "b")[0].messages[0] != turns[0].messages[0]


def test_b5_counts_hits_by_token_and_imbalance_by_request() -> None:
    results = [RequestResult(200, first, 90.0) for first in (10.0, 20.0, 30.0)]
    results.append(RequestResult(0, 0.0, 5.0, "lost"))
    engines = [
        {"requests": 3, "prompt_tokens": 300, "cached_tokens": 150},
        {"requests": 1, "prompt_tokens": 100, "cached_tokens": 50},
    ]

    found = figures(results, engines)

    assert found["ttft_ms_p50"] == 20.0
    assert (found["failed"], found["hit_rate"], found["imbalance"]) == (1, 0.5, 1.5)


def test_the_headline_of_b5_is_prefix_over_round_robin_and_over_the_best_in_the_control() -> None:
    def arms(shared: float, control: float) -> dict[str, list[dict[str, Any]]]:
        return {"shared": rows(ttft_ms_p50=shared), "control": rows(ttft_ms_p50=control)}

    kept = {"prefix": arms(20, 100), "round_robin": arms(60, 99), "least_loaded": arms(50, 120)}

    found = [h.value for h in b5_routing.headline(kept)]

    assert found == [3.0, 0.99]


def test_b9_offers_the_nominal_load_and_the_same_one_to_every_side() -> None:
    seconds = 200.0
    dues = arrivals(2.0, seconds, 1)
    tokens = sum(due.source.tokens for due in dues)

    assert tokens == pytest.approx(2.0 * CAPACITY * seconds, rel=0.1)
    assert dues == arrivals(2.0, seconds, 1)
    assert [due.at_s for due in dues] == sorted(due.at_s for due in dues)
    assert sum(source.share for source in SOURCES) == pytest.approx(1.0)


def test_the_headline_of_b9_is_adaptive_against_no_admission() -> None:
    kept = {
        "adaptive": {"2x": rows(p99_ms=300.0, goodput=0.95, jain=0.99)},
        "no_admission": {"2x": rows(p99_ms=3000.0, goodput=0.5, jain=0.9)},
    }

    assert [h.value for h in b9_contention.headline(kept)] == [0.9, 0.95, 0.99]


def test_litellm_gets_its_own_limit_only_when_one_is_set() -> None:
    free, limited = settings(["http://a"], None), settings(["http://a", "http://b"], 4)

    assert "max_parallel_requests" not in free["model_list"][0]["litellm_params"]
    assert [m["litellm_params"]["max_parallel_requests"] for m in limited["model_list"]] == [4, 4]


def test_a_plan_is_replayed_turn_by_turn_at_its_due_times() -> None:
    with mock_engine("constant:400ms", record=10) as engine:
        url, body = f"{engine.url}/v1/chat/completions", {"model": "m", "messages": []}
        ask = {**body, "messages": [{"role": "user", "content": "hi"}]}
        results = replay_plan(
            [
                PlannedRequest(at_s=0.0, url=url, body=ask, deadline_s=1.5),
                PlannedRequest(at_s=0.01, url=url, body=ask, after=0),
                PlannedRequest(at_s=0.02, url=url, body=body),
            ],
            grace_s=5.0,
        )
        first, refused, second = sorted(engine.requests(), key=lambda r: r["began"])

    assert [one.status for one in results] == [200, 200, 400]
    assert "messages" in results[2].why
    assert refused["began"] - first["began"] < 0.35 < second["began"] - first["began"]
    deadline_ms = int(first["headers"]["x-sage-deadline-ms"])
    assert deadline_ms == pytest.approx(first["began"] * 1000 + 1500, abs=100)
    assert "x-sage-deadline-ms" not in second["headers"]


def test_a_plan_that_waits_for_an_unknown_line_is_refused() -> None:
    with pytest.raises(ConfigError, match="after must name a line before"):
        replay_plan([PlannedRequest(at_s=0.0, url="http://a", body={}, after=3)], grace_s=1.0)


@pytest.mark.parametrize("options", [["--clients=4"], ["--rate=200"], ["--clients=2", "--stream"]])
def test_the_load_generator_counts_its_requests(options: list[str]) -> None:
    with mock_engine() as engine:
        program = str(sage_home() / "lib" / "load-generator")
        url = f"{engine.url}/v1/chat/completions"
        line = [program, "--url", url, "--duration=0.3s", "--ids", *options]
        figures = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
        stats = engine.stats()

    assert figures["failed"] == 0
    assert figures["answered"] == stats["requests"] == stats["distinct_request_ids"] > 10
    assert 0 < figures["ttft_ms_p50"] <= figures["p50_ms"] <= figures["p99_ms"]


@pytest.mark.service
@pytest.mark.alone
@pytest.mark.timeout(120)
def test_b9_runs_to_its_end_without_peers(tmp_path: Path) -> None:
    kept = b9_contention.run(repeats=1, quick=True, peers=())

    assert kept.save(tmp_path).exists()
    for side in ("adaptive", "fifo", "no_admission"):
        assert kept.sides[side]["2x"][0]["requests"] > 100
    assert {h.metric for h in kept.headline} >= {"goodput, 2x", "jain, 2x"}


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_a_benchmark_that_is_terminated_leaves_no_process(tmp_path: Path) -> None:
    command = ["-m", "benchmark_sage", "run", "B4", "--peers", "", "--into", str(tmp_path)]
    benchmark = psutil.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    kinds = wait_until(lambda: started_by(benchmark), 90, "a gateway and its engine")

    benchmark.terminate()

    assert benchmark.wait(60) == 130
    wait_until(lambda: not any(process.is_running() for process in kinds), 30, "they end")


def command_line(process: psutil.Process) -> str:
    """The command of a process; empty if it has just ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def started_by(benchmark: psutil.Process) -> list[psutil.Process]:
    """The processes that the benchmark started, once a gateway and an engine of it run."""
    found = benchmark.children(recursive=True)
    names = " ".join(map(command_line, found))
    return found if "sage_gateway" in names and names.count("mock-engine") > 1 else []
