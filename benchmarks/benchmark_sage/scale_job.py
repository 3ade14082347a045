"""Job with a slow Python step before its call, so that the step is the bottleneck, not the pool."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sage_flink as sage
from benchmark_sage.peers.sage_job import AskQuestion, EncodeAnswer
from benchmark_sage.workload import Work
from sage_connectors import kafka
from sage_flink.common import Record, Settings
from sage_flink.platform.flink_rest import ENDED, FlinkRest


@dataclass(frozen=True, slots=True)
class SlowStep:
    """Passes each record on unchanged after ``seconds``."""

    seconds: float

    def __call__(self, record: Record) -> Iterable[Record]:
        """One record."""
        time.sleep(self.seconds)
        return (record,)


def build(work: Work, slow_s: float) -> sage.flow.Graph:
    """texts -> ask -> slow -> answers."""
    answer = sage.chat(model=work.model, tokens_max=work.tokens_max)
    return (
        sage.flow.read("texts", kafka(work.topic, work.servers, group=work.name))
        .flat_map("ask", AskQuestion())
        .flat_map("slow", SlowStep(slow_s))
        .call("answer", answer, capacity=work.capacity, timeout_s=60)
        .flat_map("encode", EncodeAnswer())
        .write("answers", kafka(work.answers, work.servers, delivery="at_least_once"))
        .dead_letters_to(kafka(work.dead_letters, work.servers, delivery="at_least_once"))
    )


def start(work: Work, slow_s: float) -> Callable[[], None]:
    """Submit the job to the stack, and return a function that cancels it."""
    settings = Settings.load()
    job_id = sage.flow.submit(build(work, slow_s), name=work.name, settings=settings)

    def stop() -> None:
        with FlinkRest(settings.flink_url) as rest:
            if rest.job(job_id).state not in ENDED:
                rest.cancel(job_id)

    return stop
