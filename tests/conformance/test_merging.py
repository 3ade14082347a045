"""Merging of near-equal requests on both targets, and on Flink across a restart."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from call_targets import JOB, MINI, Branch, on_flink, on_local, run_target
from merge_pairs import traffic
from minicluster import QUIET, FailOnce, FileSink, restore_environment, wait_for_workers
from text_vectors import text_vector
from waiting import wait_until

import sage_flink as sage
from benchmark_sage.mock_engine import MockEngine, mock_engine
from sage_flink.common import Record, Settings
from sage_flink.flow import FlinkOptions, Merging
from sage_flink.flow.lists import ListSource

pytestmark = [pytest.mark.timeout(600), *QUIET]

REQUESTS = traffic(600, near=0.4)
#: Of vectors that are hashed letters.
CALL: dict[str, Any] = {"capacity": 32, "timeout_s": 60.0, "merging": Merging(0.6, within_s=120)}


def record_of(number: int, text: str) -> Record:
    messages = [{"role": "user", "content": text}]
    return Record(f"r{number}", {"messages": messages, "text": text, "vector": text_vector(text)})


def branch() -> Branch:
    records = [record_of(n, request.text) for n, request in enumerate(REQUESTS)]
    # The first of the two fails, so the other one is asked itself.
    records += [record_of(n, "[[400 first=1]] what fails") for n in (600, 601)]
    records.append(Record("no vector", {**records[0].value, "vector": None}))
    return Branch("ask", sage.chat(model="ask"), tuple(records), CALL)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    yield from restore_environment()


@pytest.fixture(scope="module")
def engine() -> Iterator[MockEngine]:
    with mock_engine("constant:20ms", record=10_000) as started:
        yield started


def wrong(answers: dict[str, Record]) -> list[str]:
    """The texts with an answer to something else."""
    meaning = {f"sum:{digest(r.text)}": r.meaning for r in REQUESTS}
    return [
        request.text
        for number, request in enumerate(REQUESTS)
        if meaning[answer_of(answers[f"r{number}"])] != request.meaning
    ]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answer_of(record: Record) -> str:
    return str(record.value["answer"]).split(" ")[0]


@pytest.mark.parametrize(
    "target", ["local", pytest.param("native", marks=[pytest.mark.flink, pytest.mark.alone])]
)
def test_thirty_percent_of_the_calls_are_saved_and_no_answer_is_wrong(
    target: str, engine: MockEngine, tmp_path: Path
) -> None:
    engine.reset()

    def two_subtasks(branches: list[Branch], url: str, folder: Path) -> None:
        on_flink(branches, url, folder, FlinkOptions(**MINI, parallelism=2))

    run = run_target(on_local if target == "local" else two_subtasks, [branch()], engine, tmp_path)

    answers = {record.id: record for record in run.answered["ask"]}
    assert len(answers) == len(run.answered["ask"]) == len(REQUESTS) + 1
    assert wrong(answers) == []
    asked = [request["headers"]["x-request-id"] for request in run.requests]
    assert len(asked) == len(set(asked)) <= 0.7 * len(REQUESTS) + 2
    failed = {id_: letter.reason for id_, (letter,) in run.failed.items()}
    assert failed.pop("no vector").startswith("its field 'vector' must be a vector: float32 bytes")
    assert len(failed) == 1
    assert {*failed, *answers} >= {"r600", "r601"}


@pytest.mark.flink
@pytest.mark.alone
def test_a_restart_loses_no_record_and_gives_no_wrong_answer(
    engine: MockEngine, tmp_path: Path
) -> None:
    engine.reset()
    records = tuple(record_of(n, request.text) for n, request in enumerate(REQUESTS))
    checkpoints = tmp_path / "checkpoints"
    out = FailOnce(str(tmp_path / "out"), rows_max=20, checkpoints=str(checkpoints))
    failed = FileSink(str(tmp_path / "failed"))
    graph = (
        sage.flow.read("in", ListSource(records))
        .map("slowly", out.slowly(0.05))  # so that checkpoints are taken among the records
        .call("ask", sage.chat(model="ask"), **{**CALL, "capacity": 4})
        .write("out", out)
        .dead_letters_to(failed)
    )
    options = FlinkOptions(
        target="local",
        checkpoint_interval_s=0.3,
        bundle_items=5,
        checkpoints=checkpoints.as_uri(),
    )
    settings = Settings.load().model_copy(update={"gateway_url": engine.url})

    sage.flow.submit(graph, name=JOB, options=options, settings=settings)
    wait_until(lambda: len({r.id for r in out.read_records()}) == 600, 240, "all answers")
    wait_for_workers()

    answers = {record.id: record for record in out.read_records()}
    assert Path(f"{out.path}.writers").read_text() == "opened\n" * 2  # one restart
    assert wrong(answers) == []
    assert failed.read_records() == []
    calls = {request["headers"]["x-request-id"] for request in engine.requests()}
    # Answers are not in the checkpoint: what rewords an earlier request is asked behind it.
    assert len(calls) <= 0.9 * 600
