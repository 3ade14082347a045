"""Drill of a rollout: model and prompt are switched under load, the TaskManager is killed.

::

    Kafka -> decode -> rollout -> prompt -> ask (two mock engines) -> Kafka, exactly once

``rollout`` is a broadcast join with the version, or nothing: then the prompt and the call each poll
a file with the version once a second, as services do whose configuration may change.
The engine answers a text with its checksum, so an answer tells which prompt it was asked with.
"""

import math
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

import sage_flink as sage
from benchmark_sage.recovery.cluster import Cluster, until
from benchmark_sage.recovery.workload import DecodeEvent, event, event_of, expected_answer
from sage_connectors import Json, kafka
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Record, Settings
from sage_flink.common.dead_letters import from_message
from sage_flink.platform.flink_rest import ENDED, FlinkRest

VERSIONS = (
    {"model": "mock-chat", "prompt": "In one word: "},
    {"model": "mock-other", "prompt": "In one sentence: "},
)
#: The versions in their order; the TaskManager is killed right after each of the first three.
SWITCHES = (1, 0, 1, 0)
KILLS, LAST_ANSWERS = 3, 100
CHECKPOINT_S, POLL_S, FLOW_S, WAIT_S, SETTLE_S = 1.0, 1.0, 8.0, 240.0, 3.0


def version_of(record: Record) -> dict[str, str]:
    """The version that the record has from the broadcast join."""
    version: dict[str, str] = record.value["rollout"]["rows"]["ask"]
    return version


def polled_version(path: str, phase: float) -> dict[str, str]:
    """The version in the file at the last poll of a service that polls at this part of a second."""
    return _read_version(path, phase, math.floor(time.time() / POLL_S - phase))


@lru_cache(maxsize=4)
def _read_version(path: str, phase: float, poll: int) -> dict[str, str]:
    return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, str])


@dataclass(frozen=True, slots=True)
class AddPrompt:
    """The version's prompt in front of the text."""

    path: str = ""

    def __call__(self, record: Record) -> Iterable[Record]:
        """The record with its messages."""
        version = polled_version(self.path, 0.0) if self.path else version_of(record)
        messages = [{"role": "user", "content": version["prompt"] + record.value["text"]}]
        yield record.replace(value={**record.value, "messages": messages})


@dataclass(frozen=True, slots=True)
class VersionChat:
    """A chat with the model of the version."""

    path_of_version: str = ""
    model: str = "by version"
    mode: Literal["post"] = "post"
    path: str = "/v1/chat/completions"

    def request(self, record: Record) -> bytes:
        """The request's JSON."""
        path = self.path_of_version
        version = polled_version(path, 0.5) if path else version_of(record)
        return sage.chat(model=version["model"], tokens_max=16).request(record)

    def answer(self, record: Record, body: bytes) -> Record:
        """The answer's checksum, and the model that the engine names."""
        answered = sage.chat(model=self.model).answer(record, body).value["answer"]
        model = msgspec.json.decode(body)["model"]
        value = {"id": record.id, "model": model, "answer": answered.partition(" ")[0]}
        return record.replace(value=value)


@dataclass(slots=True)
class RolloutRun:
    """One side of the drill: four switches and three kills during ``events_min`` events or more."""

    cluster: Cluster
    broadcast: bool
    events_min: int
    folder: Path
    rate_per_s: float = 120.0
    seed: int = 0
    #: How many events are fed.
    count: int = 0
    name: str = field(default_factory=lambda: f"rollout{uuid.uuid4().hex[:8]}")

    def run(self) -> dict[str, Any]:
        """The row of the drill.

        Raises:
            TimeoutError: the job does not run, or not every event has an outcome.
        """
        for topic in self.topics:
            ensure_topic(topic)
        self._switch(0)
        before = self._calls()
        options = sage.flow.FlinkOptions(checkpoint_interval_s=CHECKPOINT_S)
        with FlinkRest(Settings.load().flink_url) as rest:
            job_id = sage.flow.submit(self.build(), name=self.name, options=options)
            try:
                until(lambda: rest.all_tasks_running(job_id), WAIT_S, "the job's tasks run")
                self._load(rest, job_id)
                return {**self.account(), **self._costs(before), "restarts": rest.restarts(job_id)}
            finally:
                if rest.job(job_id).state not in ENDED:
                    rest.cancel(job_id)
                for topic in self.topics:
                    delete_topic(topic)

    @property
    def topics(self) -> tuple[str, str, str, str]:
        """The topics of events, versions, answers and dead letters."""
        events_, versions = f"{self.name}.events", f"{self.name}.versions"
        return events_, versions, f"{self.name}.answers", f"{self.name}.dead-letters"

    def build(self) -> sage.flow.Graph:
        """The job's graph."""
        events_, versions, answers, failed = self.topics
        decoded = sage.flow.read("events", kafka(events_, group=self.name)).flat_map(
            "decode", DecodeEvent()
        )
        if self.broadcast:
            changes = sage.flow.read("versions", kafka(versions, group=self.name, format=Json()))
            initial = {"ask": VERSIONS[0]}
            decoded = decoded.broadcast_join("rollout", changes, initial=initial)
        path = "" if self.broadcast else str(self._file)
        return (
            decoded.flat_map("prompt", AddPrompt(path))
            .call("ask", VersionChat(path), capacity=64, timeout_s=120, retry=sage.flow.Retry(100))
            .write("answers", kafka(answers, format=Json()))
            .dead_letters_to(kafka(failed))
        )

    def account(self) -> dict[str, int]:
        """Where events ended; ``mixed``: answers by one version's model to another's prompt."""
        answers = [msgspec.json.decode(record.value) for record in drain(self.topics[2])]
        failed = Counter(from_message(record).id for record in drain(self.topics[3]))
        texts = dict(map(event_of, range(self.count)))
        prompts = [self._prompt_version(texts, answer) for answer in answers]
        models = [version["model"] for version in VERSIONS]
        ends = Counter(answer["id"] for answer in answers) + failed
        return {
            "ids": self.count,
            "lost": len(texts.keys() - ends.keys()),
            "duplicated": sum(n - 1 for n in ends.values()),
            "both": len(failed.keys() & {answer["id"] for answer in answers}),
            "wrong": prompts.count(None) + len(ends.keys() - texts.keys()),
            "mixed": sum(
                prompt is not None and models[prompt] != answer["model"]
                for prompt, answer in zip(prompts, answers, strict=True)
            ),
            **{f"of_version_{number}": prompts.count(number) for number in range(len(VERSIONS))},
            "back": sum(prompt == 0 for prompt in prompts[-LAST_ANSWERS:]),
        }

    def _prompt_version(self, texts: dict[str, str], answer: dict[str, Any]) -> int | None:
        text = texts.get(answer["id"], "")
        for number, version in enumerate(VERSIONS):
            if answer["answer"] == expected_answer(version["prompt"] + text):
                return number
        return None

    def _load(self, rest: FlinkRest, job_id: str) -> None:
        """Feed during all switches; each comes when the stream has flowed for a while."""
        stop, chance = threading.Event(), random.Random(self.seed)
        feeder = threading.Thread(target=lambda: feed(self.topics[0], self._events(stop)))
        feeder.start()
        try:
            for number, version in enumerate(SWITCHES):
                answered = self._ends()
                until(lambda least=answered: self._ends() > least, WAIT_S, "the stream flows")  # type: ignore[misc]
                time.sleep(FLOW_S)
                self._switch(version)
                if number < KILLS:
                    time.sleep(chance.uniform(0.0, 1.5 * CHECKPOINT_S))
                    self.cluster.kill_taskmanager(rest, job_id)
            time.sleep(FLOW_S)
        finally:
            stop.set()
            feeder.join(WAIT_S)
        until(lambda: self._ends() >= self.count, WAIT_S, "an end of every event", every_s=1.0)
        time.sleep(SETTLE_S)  # a second answer would be visible now

    def _events(self, stop: threading.Event) -> Iterator[tuple[bytes, bytes]]:
        began_s = time.monotonic()
        while self.count < self.events_min or not stop.is_set():
            time.sleep(max(0.0, began_s + self.count / self.rate_per_s - time.monotonic()))
            id_, text = event_of(self.count)
            self.count += 1
            yield id_.encode(), event(id_, text)

    def _ends(self) -> int:
        ids = {from_message(record).id for record in drain(self.topics[3])}
        return len(ids | {msgspec.json.decode(one.value)["id"] for one in drain(self.topics[2])})

    def _switch(self, version: int) -> None:
        """Send the version to the topic, and to the file in one step."""
        row = msgspec.json.encode(VERSIONS[version])
        feed(self.topics[1], [(b"ask", row)])
        next_ = self._file.with_suffix(".next")
        next_.write_bytes(row)
        next_.replace(self._file)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _calls(self) -> int:
        return sum(len(self.cluster.generations(version["model"])) for version in VERSIONS)

    def _costs(self, before: int) -> dict[str, float]:
        return {"calls_per_id": round((self._calls() - before) / self.count, 4)}
