"""The promises of every target of a Call node for batches of texts, whatever the engine does.

A text or a vector fails alone; the run is that of ``test_call.py``.
"""

import pytest
from call_branches import (
    BROKEN,
    BUSY,
    FRESH_S,
    ITEMS_MAX,
    POISON,
    TOKENS_MAX,
    failure_of,
    is_embedded,
    requests_with,
    tenant_texts,
    text_of,
)
from call_targets import RunResult
from minicluster import QUIET

from benchmark_sage.mock_engine import MockEngine

pytestmark = [pytest.mark.timeout(400), *QUIET]


def test_texts_are_batched_up_to_the_limit(run: RunResult) -> None:
    sizes = [len(request["parsed"]["input"]) for request in run.of("embed")]

    assert max(sizes) == ITEMS_MAX


@pytest.mark.parametrize("kind", POISON + BROKEN)
def test_a_poison_item_fails_alone_with_its_reason(run: RunResult, kind: str) -> None:
    attempts, reason = failure_of(run, f"e-{kind}")
    requests = requests_with(
        run, "connection-faults" if kind in BROKEN else "embed", f"poison by {kind}"
    )

    # On a broken connection the number of requests depends on which connection was free.
    assert attempts == len(requests) or kind in BROKEN
    assert reason == f"told to answer {kind}" if kind.isdigit() else len(reason) > 10
    assert requests[-1]["parsed"]["input"] == [text_of(f"e-{kind}")]


def test_the_neighbours_of_a_poison_item_get_their_vectors(
    run: RunResult, engine: MockEngine
) -> None:
    assert is_embedded(run, engine, *(f"n{n:02}" for n in range(27)), *(f"b{n}" for n in range(6)))


@pytest.mark.parametrize(
    "record",
    ["e-shuffled", "e-20-mb", "e-once", "e-pause", *(f"e-busy-{kind}" for kind in BUSY)],
)
def test_a_text_with_a_transient_fault_is_embedded(
    run: RunResult, engine: MockEngine, record: str
) -> None:
    assert is_embedded(run, engine, record)


@pytest.mark.parametrize(
    ("kind", "message"), [("dim=7", "dimension 7"), ("nan", "finite"), ("one_few", "no embedding")]
)
def test_a_bad_vector_fails_its_text_only(
    run: RunResult, engine: MockEngine, kind: str, message: str
) -> None:
    assert message in failure_of(run, f"v-{kind}")[1]
    assert is_embedded(run, engine, *(f"v{n:02}" for n in range(12)))


def test_tenants_and_priorities_never_share_a_request(run: RunResult) -> None:
    record_of = {record.value["text"]: record for record in tenant_texts().records}
    for request in run.of("tenant-texts"):
        records = [record_of[text] for text in request["parsed"]["input"]]
        owners = {(r.headers["sage-tenant"], r.headers["sage-priority"]) for r in records}
        named = (request["headers"]["x-sage-tenant"], request["headers"]["x-sage-priority"])

        assert owners == {(named[0].encode(), named[1].encode())}
        assert int(request["headers"]["x-sage-deadline-ms"]) / 1000 > request["began"]
        soft_ms = min(record.timestamp_ms for record in records) + 1_000 * FRESH_S
        assert request["headers"]["x-sage-soft-deadline-ms"] == str(soft_ms)


def test_batches_stay_below_tokens_max(run: RunResult) -> None:
    sizes = [len("".join(request["parsed"]["input"])) / 4 for request in run.of("tenant-texts")]

    assert max(sizes) <= TOKENS_MAX
    assert len(run.answered["tenant-texts"]) == 24


def test_a_text_that_hangs_fails_alone(run: RunResult, engine: MockEngine) -> None:
    assert failure_of(run, "h-nothing")[1].startswith("no answer within 8")
    assert is_embedded(run, engine, *(f"h{n}" for n in range(7)))
