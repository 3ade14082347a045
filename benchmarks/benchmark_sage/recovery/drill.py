"""Drill: a stream of ids, a fault in the middle of it, and record accounting at its end."""

import contextlib
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sage_flink as sage
from benchmark_sage.recovery.accounting import DeliveryCounts, SinkContents, count_deliveries
from benchmark_sage.recovery.cluster import Cluster, until
from benchmark_sage.recovery.feeder import Feeder, Message
from benchmark_sage.recovery.watch import AnswerWatch
from benchmark_sage.recovery.workload import DIM, Workload, build, event, expected_answer
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic
from sage_flink.common import Settings
from sage_flink.common.dead_letters import from_message
from sage_flink.common.errors import StoreUnavailable
from sage_flink.platform.flink_rest import ENDED, FlinkRest

#: Steps whose dead letters keep an id out of a sink.
BEFORE_ANSWERS = frozenset({"decode", "generate", "answer", "json", "answers"})
BEFORE_VECTORS = frozenset({"decode", "generate", "answer", "embed", "vectors"})
BEFORE_POINTS = frozenset({"decode", "generate", "answer", "measure", "telemetry"})
CHECKPOINT_S = 1.0
SETTLE_S = 3.0
Fault = Callable[["RunningDrill"], None]


@dataclass(slots=True)
class RunningDrill:
    """A drill whose job reads its stream: what a fault can inspect and break."""

    cluster: Cluster
    work: Workload
    job_id: str
    rest: FlinkRest
    watch: AnswerWatch
    texts: dict[str, str]
    fed: list[str] = field(default_factory=list)
    #: Values that a fault adds to the drill's row.
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DrillOutcome:
    """The result of one drill. ``first_output_s`` counts from the start of the fault.

    ``vectors`` and ``points`` are (rows of the ids fed, rows in total, expected rows).
    """

    answers: DeliveryCounts
    vectors: tuple[int, int, int]
    points: tuple[int, int, int]
    calls_per_id: float
    first_output_s: float | None
    restarts: int
    dead_letters: Sequence[dict[str, Any]]
    notes: dict[str, Any]

    @property
    def is_balanced(self) -> bool:
        """Whether every sink holds exactly the expected rows."""
        stores = (self.vectors, self.points)
        return self.answers.is_balanced and all(own == total == due for own, total, due in stores)

    def row(self) -> dict[str, Any]:
        """The drill's row in the result file."""
        return {
            **{field: getattr(self.answers, field) for field in DeliveryCounts.__slots__},
            "vectors": self.vectors,
            "points": self.points,
            "calls_per_id": round(self.calls_per_id, 4),
            "first_output_s": self.first_output_s and round(self.first_output_s, 2),
            "restarts": self.restarts,
            **self.notes,
        }


def drill(
    cluster: Cluster,
    events: Sequence[tuple[str, str]],
    fault: Fault,
    *,
    rate_per_s: float,
    seed: int = 0,
    more: Sequence[tuple[str, str]] = (),
    more_last: bool = False,
    raw: Sequence[tuple[str, bytes]] = (),
    partitions: int = 1,
    wait_s: float = 240.0,
    starts_warm: bool = True,
    options: sage.flow.FlinkOptions | None = None,
    **limits: Any,
) -> DrillOutcome:
    """Feed ``events`` at ``rate_per_s``, inject ``fault`` at a random moment, count at the end.

    ``more`` are further events, spread among the others or (``more_last``) at the end; ``raw`` are
    messages (key and value) that are not events and must each become one dead letter. With
    ``starts_warm`` the stream waits for the outcome of its first message: a job that has just been
    started can take seconds for it, and a fault before that would find no call in flight.
    """
    work = _workload(partitions, limits)
    options = options or sage.flow.FlinkOptions(checkpoint_interval_s=CHECKPOINT_S)
    before = len(cluster.generations(work.model))
    messages = _mix(events, more, more_last, raw, random.Random(seed))
    with FlinkRest(Settings.load().flink_url) as rest, AnswerWatch(work.answers) as watch:
        job_id = sage.flow.submit(build(work), name=work.name, options=options)
        running = RunningDrill(cluster, work, job_id, rest, watch, {**dict(events), **dict(more)})
        try:
            until(lambda: rest.all_tasks_running(job_id), 120, "the job's tasks run")
            feeder = _feeder(running, messages, rate_per_s, starts_warm=starts_warm)
            broken_s, fed_before = feeder.run(lambda: fault(running), random.Random(seed))
            running.notes["fed_before_fault"] = fed_before
            until(lambda: _finished_ids(running) >= len(messages), wait_s, "outcomes", every_s=0.5)
            time.sleep(SETTLE_S)  # a duplicate would appear now
            return _outcome(running, broken_s, len(cluster.generations(work.model)) - before)
        finally:
            clear(running)


def _workload(partitions: int, limits: Mapping[str, Any]) -> Workload:
    work = Workload(name=f"drill{uuid.uuid4().hex[:8]}", **limits)
    ensure_topic(work.topic, partitions)
    for topic in (work.answers, work.dead_letters):
        ensure_topic(topic)
    return work


def _feeder(
    running: RunningDrill, messages: Sequence[Message], rate_per_s: float, *, starts_warm: bool
) -> Feeder:
    return Feeder(
        running.work.topic,
        messages,
        rate_per_s,
        fed=running.fed,
        finished=lambda: _finished_ids(running),
        starts_warm=starts_warm,
    )


def _mix(
    events: Sequence[tuple[str, str]],
    more: Sequence[tuple[str, str]],
    more_last: bool,
    raw: Sequence[Message],
    chance: random.Random,
) -> list[Message]:
    messages = [(id_, event(id_, text)) for id_, text in events]
    others = [(id_, event(id_, text)) for id_, text in more]
    for message in (*raw, *(() if more_last else others)):
        messages.insert(chance.randrange(len(messages)), message)
    return messages + (others if more_last else [])


def dead_letters(work: Workload) -> list[dict[str, Any]]:
    """The dead letters of the job."""
    read = map(from_message, drain(work.dead_letters))
    return [{"id": one.id, "step": one.step, "reason": one.reason} for one in read]


def _finished_ids(running: RunningDrill) -> int:
    """How many ids are finished: answered, or dead-lettered before the answers."""
    count = len(running.watch.ids())
    if count < len(running.fed):
        count += len({x["id"] for x in dead_letters(running.work) if x["step"] in BEFORE_ANSWERS})
    return count


def _outcome(running: RunningDrill, broken_s: float, calls: int) -> DrillOutcome:
    work, watch, dead = running.work, running.watch, dead_letters(running.work)
    # A retry of the feeder during a crash of the broker can store an event twice: then two rows
    # are expected.
    copies = Counter((record.key or b"").decode() for record in drain(work.topic))
    if repeated := copies.total() - len(copies):
        running.notes["fed_twice"] = repeated
    fed = {id_: expected_answer(text) for id_, text in running.texts.items()}
    known = [x for x in dead if x["id"] in fed]
    unanswered = [x["id"] for x in known if x["step"] in BEFORE_ANSWERS]
    later = set(running.fed[running.notes.pop("fed_before_fault") :])
    first = watch.first_of(later)
    vectors, points = _store_counts(work, fed, known) if work.stores else ((0, 0, 0), (0, 0, 0))
    return DrillOutcome(
        answers=count_deliveries(fed, SinkContents(watch.rows(), unanswered), copies),
        vectors=vectors,
        points=points,
        calls_per_id=calls / len(fed),
        first_output_s=None if first is None else first - broken_s,
        restarts=running.rest.restarts(running.job_id),
        dead_letters=dead,
        notes=running.notes,
    )


Counts = tuple[int, int, int]


def _store_counts(
    work: Workload, fed: Collection[str], dead: Sequence[dict[str, Any]]
) -> tuple[Counts, Counts]:
    store = sage.db.collection(work.name, dim=DIM).open()
    bucket = sage.tsdb.bucket(work.name).open()
    rows = len(fed) - len({x["id"] for x in dead if x["step"] in BEFORE_VECTORS})
    points = len(fed) - len({x["id"] for x in dead if x["step"] in BEFORE_POINTS})
    try:
        _wait_for_rows(lambda: store.count() >= rows)
        _wait_for_rows(lambda: bucket.count("answers") >= points)
        found = bucket.count("answers")
        return (store.count(fed), store.count(), rows), (found, found, points)
    finally:
        store.close()
        bucket.close()


def _wait_for_rows(enough: Callable[[], bool]) -> None:
    with contextlib.suppress(TimeoutError):  # the counts show the missing rows
        until(enough, 60, "rows", every_s=0.5)


def clear(running: RunningDrill) -> None:
    """End the job and delete its topics, as far as the broker can: the counts are made by now."""
    if running.rest.job(running.job_id).state not in ENDED:
        running.rest.cancel(running.job_id)
    # A broker whose clock went back by an hour forwards no request to its controller until then.
    with contextlib.suppress(StoreUnavailable):
        for topic in (running.work.topic, running.work.answers, running.work.dead_letters):
            delete_topic(topic)
