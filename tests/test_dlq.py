"""``sage dlq``: arguments refused without contacting a server, and its output for a real topic."""

import json
import uuid

import pytest
from typer.testing import CliRunner

from sage_connectors.kafka_client import delete_topic, ensure_topic, feed
from sage_flink import cli
from sage_flink.cli.dlq_filters import since_ms
from sage_flink.common import ConfigError, FailedRecord, NotFound, Record
from sage_flink.common.dead_letters import from_message, replay_mark, to_message


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A stack directory in which no stack was ever started."""
    monkeypatch.delenv("SAGE_KAFKA_SERVERS", raising=False)
    monkeypatch.delenv("SAGE_FLINK_URL", raising=False)
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    return tmp_path


def sage(*words):
    return CliRunner().invoke(cli.app, ["dlq", *map(str, words)], env={"COLUMNS": "80"})


def refusal_of(*words):
    done = sage(*words)
    assert done.exit_code
    return done.exception


@pytest.mark.parametrize("words", [("list", "rag_ingest"), ("show", "topic", "id")])
def test_without_a_stack_no_kafka_on_the_default_port_is_contacted(words, home):
    assert f"no stack in {home}; run `sage up`" in str(refusal_of(*words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("list", "rag_ingest", "--since", "soon"), "--since must be such as 1h"),
        (("list", "rag_ingest", "--reason", "("), "--reason must be a regular expression, got '('"),
        (("list", "not a topic"), "topic must be 1 to 249 letters"),
        (("replay", "some-topic"), "'some-topic' is no pipeline: which steps to replay?"),
        (("replay", "nowhere.yaml"), "nowhere.yaml: No such file or directory"),
    ],
)
def test_the_error_for_a_wrong_argument_names_it(words, message, home, monkeypatch):
    monkeypatch.setenv("SAGE_KAFKA_SERVERS", "127.0.0.1:1")

    error = refusal_of(*words)

    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_the_error_for_a_pipeline_without_a_dead_letter_topic_names_the_next_step(tmp_path, home):
    path = tmp_path / "mine.yaml"
    path.write_text("steps: [{read: in, from: {kafka: {topic: t}}}]")

    assert 'add .dead_letters_to(kafka("{job}.dead-letters"))' in str(refusal_of("list", path))


def test_times_are_ages_or_dates():
    day = 86_400
    ages = {"30s": day - 30, "1.5m": day - 90, "2h": day - 7200, "1d": 0}

    assert {age: since_ms(age, day) / 1000 for age in ages} == ages
    assert since_ms("1970-01-02", 0) == since_ms("1970-01-02T01:00+01:00", 0) == day * 1000


@pytest.fixture
def topic():
    name = f"dlq-{uuid.uuid4().hex}"
    ensure_topic(name, 2)
    yield name
    delete_topic(name)


def put(topic, *messages):
    feed(topic, [(m.key, m.value, m.headers, m.timestamp_ms or None) for m in messages])


def dead_letter_of(id_, step="split", reason="field 'text' has 12 bytes", value=b"text", **more):
    return to_message(FailedRecord(Record(id_, value, **more), step, reason), "mine")


def read_dead_letters(topic, *words):
    return json.loads(sage("list", topic, "--json", *words).output)


@pytest.mark.service
def test_dead_letters_are_listed_within_the_width_and_counted_by_reason(topic):
    long = "x" * 300
    put(topic, *(dead_letter_of(f"{long}{n}", reason=f"has {n} bytes {long}") for n in range(3)))
    put(topic, dead_letter_of("one", step="embed"), Record("", b"rubbish"))

    lines = sage("list", topic).output.splitlines()

    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:2] == ["id", "step"]
    (counted,) = (line for line in lines if line.startswith("3 "))
    assert "split" in counted
    assert "has # bytes" in counted
    assert lines[-2].split() == ["4", "in", "all"]
    assert lines[-1] == "1 messages are not dead letters of this version"


@pytest.mark.service
def test_replayed_dead_letters_are_hidden_without_the_option_all(topic):
    put(topic, dead_letter_of("a"), dead_letter_of("b"))
    position = next(found["position"] for found in read_dead_letters(topic) if found["id"] == "a")
    put(topic, replay_mark(from_message(dead_letter_of("a")), position))

    assert [found["id"] for found in read_dead_letters(topic)] == ["b"]
    every = read_dead_letters(topic, "--all")
    assert {found["id"]: found["replayed"] for found in every} == {"a": True, "b": False}
    put(
        topic,
        replay_mark(from_message(dead_letter_of("b")), read_dead_letters(topic)[0]["position"]),
    )
    assert sage("list", topic).output == "no dead letters; 2 replayed, see --all\n"


@pytest.mark.service
def test_dead_letters_are_filtered(topic):
    old = dead_letter_of("old").replace(timestamp_ms=1_000)
    put(
        topic, old, dead_letter_of("new"), dead_letter_of("other", step="embed", reason="no answer")
    )

    def ids(*words):
        return [found["id"] for found in read_dead_letters(topic, *words)]

    assert ids("--step", "embed") == ids("--reason", "^no") == ids("--id", "other") == ["other"]
    assert ids("--limit", 1) == ["old"]
    assert sorted(ids("--since", "1h")) == ["new", "other"]


@pytest.mark.service
def test_a_dead_letter_is_shown_completely_and_readable(topic):
    put(
        topic,
        dead_letter_of("a", key=b"\xff", headers={"tenant": b"x"}),
        dead_letter_of("a", value={"n": [1]}),
    )
    put(topic, dead_letter_of("b", value=b"\xff" * 5_000))

    text, raw = sage("show", topic, "a").output, sage("show", topic, "b").output

    assert "base64': '/w=='" in text
    assert "value         bytes\ntext\n" in text
    assert '"n": [' in text
    assert "5000 bytes; all with --json" in raw
    assert len(json.loads(sage("show", topic, "b", "--json").output)[0]["value"]["base64"]) > 5_000
    assert isinstance(refusal_of("show", topic, "c"), NotFound)


@pytest.mark.service
def test_the_dead_letters_of_a_job_are_found_by_its_name():
    job = f"job-{uuid.uuid4().hex}"
    for topic in (job, f"{job}.dead-letters"):  # a topic may have the job's name, too
        ensure_topic(topic)
    try:
        put(job, Record("", b"no dead letter"))
        put(f"{job}.dead-letters", dead_letter_of("one"))

        assert [found["id"] for found in read_dead_letters(job)] == ["one"]
        assert [found["id"] for found in read_dead_letters(f"{job}.dead-letters")] == ["one"]
        assert f"no dead letters of a job 'x{job}'" in str(refusal_of("list", f"x{job}"))
    finally:
        for topic in (job, f"{job}.dead-letters"):
            delete_topic(topic)
