"""Invalid engine answers are retried if that may help, otherwise dead-lettered, never stored."""

import pytest

#: Script for the engine, and the steps that may dead-letter the record: the call detects a vector
#: of a wrong dimension by the other vectors of its request; a single one is refused by the store.
RUBBISH = {
    "truncated": ("[[half_json]]", {"generate"}),
    "error_200": ("[[error_200]]", {"generate"}),
    "dimension": ("[[dim=7]]", {"embed", "vectors"}),
    "nan": ("[[nan]]", {"embed"}),
    "one_few": ("[[one_few]]", {"embed"}),
}


@pytest.mark.parametrize("kind", RUBBISH)
def test_an_invalid_answer_is_dead_lettered_and_never_stored(run, kind):
    script, steps = RUBBISH[kind]
    bad = [(f"bad/{n}", f"{script} {n}") for n in range(5)]

    outcome = run(
        lambda running: None, name=f"bad_answer_{kind}", more=bad, attempts_max=2, ids=120
    )

    assert outcome.is_balanced, outcome
    assert outcome.restarts == 0
    assert sorted(letter["id"] for letter in outcome.dead_letters) == [id_ for id_, _ in bad]
    assert {letter["step"] for letter in outcome.dead_letters} <= steps


def test_vectors_out_of_order_are_matched_to_their_texts(run):
    odd = [(f"odd/{n}", f"[[shuffled]] {n}") for n in range(5)]

    outcome = run(lambda running: None, name="bad_answer_shuffled", more=odd, ids=120)

    assert outcome.is_balanced, outcome
    assert outcome.dead_letters == []
