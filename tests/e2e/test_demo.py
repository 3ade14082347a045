"""The demo, run twice as a user would, and the pipeline that the gateway serves afterwards."""

import re
import subprocess
import sys

import openai
import pytest

pytestmark = [pytest.mark.service, pytest.mark.flink, pytest.mark.timeout(600)]


def demo(*options):
    done = subprocess.run(
        [sys.executable, "-m", "sage_jobs.demo", "--keep", *options],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def counts(printed):
    rows = re.findall(r"^ *([a-z][a-z, -]+?) {2,}([\d,]+) ", printed, re.MULTILINE)
    return {stage: int(number.replace(",", "")) for stage, number in rows}


@pytest.fixture(scope="module")
def first():
    return demo("--ask", "What does the assert statement do?")


def test_the_demo_ingests_everything_and_answers_with_sources(first):
    counted = counts(first)

    assert counted["documents fed"] == counted["documents read"] == 79
    assert counted["dead-lettered"] == 0
    assert counted["chunks"] == counted["vectors of these chunks"] > 700  # by Python's version
    assert counted["vectors, all runs"] == counted["points, all runs"]
    assert "python/assert" in first
    assert max(map(len, first.splitlines())) <= 80


@pytest.mark.full
def test_a_second_demo_changes_no_count(first):
    again = demo("--ask", "What is a coroutine?")

    assert counts(again) == counts(first)


def test_a_second_job_of_the_same_name_is_refused(first):
    done = subprocess.run(
        [sys.executable, "-m", "sage_jobs.rag_ingest"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 2
    assert "job 'rag_ingest' runs already" in done.stderr


def test_the_error_for_a_wrong_folder_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sage_jobs.demo", "--keep", "--docs", tmp_path / "nosuch"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 2
    assert "nosuch" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def client(settings):
    with openai.OpenAI(
        base_url=f"{settings.gateway_url}/v1", api_key=settings.secret("gateway"), max_retries=0
    ) as client:
        yield client


QUESTION = [{"role": "user", "content": "What does the assert statement do?"}]


def test_the_served_pipeline_answers_with_its_sources(client):
    reply = client.chat.completions.create(model="rag", messages=QUESTION)

    assert reply.choices[0].message.content.strip()
    assert reply.choices[0].finish_reason in {"stop", "length"}
    assert reply.usage.completion_tokens > 0
    assert {"doc", "title", "score", "text"} <= reply.model_extra["sources"][0].keys()


def test_the_served_pipeline_streams_and_ends_with_its_sources(client):
    events = list(client.chat.completions.create(model="rag", messages=QUESTION, stream=True))

    texts = [e.choices[0].delta.content or "" for e in events if e.choices]
    ends = [e for e in events if e.choices and e.choices[0].finish_reason]
    assert len([t for t in texts if t]) > 1
    assert ends[-1].model_extra["sources"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_longer_than_the_context_is_refused_with_400(client, stream):
    long = [{"role": "user", "content": "why? " * 20_000}]

    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="rag", messages=long, stream=stream)

    assert caught.value.body["message"]
