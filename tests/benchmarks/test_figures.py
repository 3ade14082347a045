"""The pure parts of B2 and B3: counts and headline figures."""

import msgspec
import pytest

from benchmark_sage import b2_headline, b2_saturate, b3_trickle
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.pace import attempt
from benchmark_sage.peers import sage_job
from benchmark_sage.usage import UsageSample, cpu_at
from benchmark_sage.workload import Work, checksum, count_answers, percentile, request, texts
from sage_flink.common import Record
from sage_flink.flow import check


def answer(text: str, content: str = "") -> Record:
    page = {"text": text, "answer": content or checksum(text)}
    return Record(id=text, value=msgspec.json.encode(page))


def test_missing_duplicate_and_wrong_answers_are_counted():
    answers = [answer("a"), answer("a"), answer("b", "sum:0"), answer("d")]

    counted = count_answers(["a", "b", "c"], answers)

    assert counted == {"lost": 1, "duplicated": 1, "wrong": 2}


def test_a_percentile_is_one_of_the_values():
    values = [float(number) for number in range(1, 101)]

    found = [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)]

    assert found == [1.0, 50.0, 99.0, 100.0]


def test_cpu_outside_the_samples_is_that_of_the_nearest_sample():
    samples = [UsageSample(1.0, 10.0, 0), UsageSample(2.0, 12.0, 0)]

    assert [cpu_at(samples, at) for at in (0.0, 1.25, 9.0)] == [10.0, 10.5, 12.0]


def test_the_headline_is_the_ratio_within_a_repeat_and_leaves_out_failed_ones():
    arm = "lognormal s=1"
    rows = {
        "sage": {arm: [{"busy": 0.9}, {"busy": 0.8}, {"error": "away"}]},
        "limit": {arm: [{"busy": 1.0}, {"busy": 0.8}, {"busy": 1.0}]},
        "asyncio_consumer": {},
        "pyflink_default": {arm: [{"error": "no job"}] * 3},
    }

    found = b2_headline.headline(rows)

    assert [(h.metric, h.value, h.spread) for h in found] == [
        ("slots busy over limit, lognormal s=1", 0.95, (0.9, 1.0))
    ]
    assert (found[0].floor, found[0].moonshot, found[0].better) == (0.9, 0.97, "higher")


def test_the_headline_of_a_trickle_is_better_when_lower():
    rows = {"sage": {"10/s": [{"added_ms_p50": 40.0}, {"error": "away"}, {"added_ms_p50": 20.0}]}}

    found = b3_trickle.headline(rows)

    assert [(h.metric, h.value, h.better) for h in found] == [
        ("added over the call, p50, 10/s", 30.0, "lower")
    ]


def test_a_side_that_fails_becomes_a_row_with_its_error():
    def fails(side: str) -> dict[str, float]:
        raise FileNotFoundError(f"no {side}")

    assert attempt(fails, "peer") == {"error": "FileNotFoundError: no peer"}


def test_sage_sends_the_request_that_every_other_side_sends():
    work = Work(name="w", url="http://127.0.0.1:1")
    graph = sage_job.build(work)
    call = next(node for node in graph.nodes if node.name == "answer")
    (asked,) = sage_job.AskQuestion()(Record(id="1", value=b'{"text":"hi"}'))

    body = call.spec.request(asked)

    check(graph, "flink")
    assert msgspec.json.decode(body) == msgspec.json.decode(request(work, "hi"))


@pytest.mark.parametrize("arm", b2_saturate.ARMS, ids=lambda arm: arm.name)
def test_the_engine_accepts_the_latency_of_every_arm(arm):
    with mock_engine(arm.latency, seed=b2_saturate.SEED) as engine:
        assert engine.stats()["requests"] == 0


def test_all_texts_of_a_run_are_different():
    assert len(set(texts(1000))) == 1000
