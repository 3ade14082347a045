"""B2-real: B2 on a real engine, llama.cpp behind the gateway, in tokens a second.

The job is warm when the clock starts (it has processed one record); the direct client calls the
same gateway with the same number of requests in flight. Every run has its own texts of equal
length, so that no side finds the other's prompts in the engine's cache.
"""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from benchmark_sage import sides
from benchmark_sage.b2_headline import ratios
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Headline, Result, result
from benchmark_sage.workload import Work, message, texts
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed, follow
from sage_flink.common import Settings

TOKENS_MAX, SLOTS, WAIT_S = 24, 4, 300.0
#: Seconds around the calls, and answers a second in a trial: only for the estimate of time.
AROUND_S, SEEN_PER_S = 6.0, 6.0


def run(*, repeats: int, records: int = 144) -> Result:
    """Both sides ``repeats`` times, interleaved, ``records`` records each."""
    sides_: dict[str, Callable[[int], dict[str, Any]]] = {"limit": _direct, "sage": _job}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in sides_}
    pace = Pace([AROUND_S + records / SEEN_PER_S] * repeats * len(rows))
    for number in range(repeats):
        for side, measure in sides_.items():
            row = attempt(measure, records)
            rows[side].append(row)
            pace.report(f"repeat {number + 1}/{repeats}  {side:<17}", row)
    return result("B2-real", seed=0, repeats=repeats, sides=dict(rows), headline=headline(rows))


def headline(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Headline]:
    """Tokens a second, over those of the direct client."""
    values = ratios(rows["sage"], rows["limit"], "tokens_per_s")
    metric = "real engine: tokens/s over limit"
    if not values:
        return []
    return [Headline.of(metric, values, unit="ratio", floor=0.90, moonshot=0.97)]


def _work(records: int) -> Work:
    settings, name = Settings.load(), f"b2-{uuid.uuid4().hex[:8]}"
    return Work(
        name=name,
        url=settings.gateway_url,
        key=settings.secret("gateway"),
        model="smollm2",
        tokens_max=TOKENS_MAX,
        capacity=SLOTS,
        records=records,
        servers=settings.kafka_servers,
        salt=name[3:],
    )


def _direct(records: int) -> dict[str, Any]:
    warm = msgspec.structs.replace(_work(SLOTS), tokens_max=1)
    sides.limit(warm).wait(WAIT_S)  # the engine may have to be started
    figures = msgspec.json.decode(sides.limit(_work(records)).wait(WAIT_S))
    return _row(figures["tokens"], figures["seconds"])


def _job(records: int) -> dict[str, Any]:
    work = _work(records=0)
    for topic in work.topics:
        ensure_topic(topic)
    asked = [(None, message(text)) for text in texts(records + 1, work.salt)]
    began = time.monotonic()
    running = sides.sage_side(work)
    try:
        feed(work.topic, asked[:1])
        _until(work, 1)
        start_s = round(time.monotonic() - began, 2)
        began = time.monotonic()
        feed(work.topic, asked[1:])
        _until(work, len(asked))
        seconds = time.monotonic() - began
        pages = [msgspec.json.decode(record.value) for record in drain(work.answers)]
        tokens = sum(page["usage"]["completion_tokens"] for page in pages[1:])
        return {**_row(tokens, seconds), "start_s": start_s}
    finally:
        running.stop()
        for topic in work.topics:
            delete_topic(topic)


def _row(tokens: float, seconds: float) -> dict[str, Any]:
    figures = {"tokens": tokens, "seconds": round(seconds, 3)}
    return {**figures, "tokens_per_s": round(tokens / seconds, 2)}


def _until(work: Work, count: int) -> None:
    """Return after ``count`` answers. Uses one reader: polling would take CPU from the engine."""
    late = threading.Event()
    timer = threading.Timer(WAIT_S, late.set)
    timer.start()
    try:
        seen = sum(1 for _ in itertools.islice(follow(work.answers, late), count))
    finally:
        timer.cancel()
    if seen < count:
        raise TimeoutError(f"{work.answers}: {seen} of {count} answers after {WAIT_S:g} s")
