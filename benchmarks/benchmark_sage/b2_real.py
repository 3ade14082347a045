"""B2's last part: the real engine (llama.cpp) behind the gateway, tokens a second.

The job is at work when the clock starts (one record warmed it up); the direct client asks the same
gateway with as many requests in flight. Every run has texts of its own, equally long, so that no
side finds the other's prompts in the engine's cache.
"""

import time
import uuid
from typing import Any

import msgspec

from benchmark_sage import sides
from benchmark_sage.pace import Pace, attempted
from benchmark_sage.workload import Work, message, texts
from sage_connectors.kafka_client import delete_topic, drain, end_offsets, ensure_topic, feed
from sage_flink.common import Settings

RECORDS, TOKENS_MAX, SLOTS, WAIT_S = 24, 24, 4, 300.0
EXPECTED_S = 18.0


def real_engine(repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Both sides ``repeats`` times, interleaved: ``tokens_per_s`` and more."""
    rows: dict[str, list[dict[str, Any]]] = {"limit": [], "sage": []}
    pace = Pace([EXPECTED_S] * repeats * len(rows))
    for number in range(repeats):
        for side, measure in (("limit", _direct), ("sage", _job)):
            row = attempted(measure)
            rows[side].append(row)
            pace.tell(f"repeat {number + 1}/{repeats}  {'real engine':<30} {side:<17}", row)
    return rows


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


def _direct() -> dict[str, Any]:
    warm = msgspec.structs.replace(_work(SLOTS), tokens_max=1)
    sides.limit(warm).wait(WAIT_S)  # the engine may have to be started
    printed = sides.limit(_work(RECORDS)).wait(WAIT_S)
    told = msgspec.json.decode(printed)
    return _row(told["tokens"], told["seconds"])


def _job() -> dict[str, Any]:
    work = _work(records=0)
    for topic in work.topics:
        ensure_topic(topic)
    asked = [(None, message(text)) for text in texts(RECORDS + 1, work.salt)]
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
    deadline = time.monotonic() + WAIT_S
    while sum(end_offsets(work.answers).values()) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{work.answers}: not {count} answers after {WAIT_S:g} s")
        time.sleep(0.05)
