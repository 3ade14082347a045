"""An engine that answers rubbish: retried where that may help, else dead-lettered, never stored."""

import pytest

#: The script for the engine, the step whose letter it becomes.
RUBBISH = {
    "truncated": ("[[half_json]]", "generate"),
    "error_200": ("[[error_200]]", "generate"),
    "dimension": ("[[dim=7]]", "vectors"),
    "nan": ("[[nan]]", "embed"),
    "one_few": ("[[one_few]]", "embed"),
}


@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_is_a_letter_and_never_a_row(run, kind):
    script, step = RUBBISH[kind]
    bad = [(f"bad/{n}", f"{script} {n}") for n in range(5)]

    outcome = run(
        lambda running: None, name=f"bad_answer_{kind}", more=bad, attempts_max=2, ids=120
    )

    assert outcome.closes, outcome
    assert outcome.restarts == 0
    letters = {letter["id"]: letter["step"] for letter in outcome.letters}
    assert letters == {id_: step for id_, _ in bad}
    assert len(outcome.letters) == len(bad)


def test_vectors_out_of_order_find_their_texts(run):
    odd = [(f"odd/{n}", f"[[shuffled]] {n}") for n in range(5)]

    outcome = run(lambda running: None, name="bad_answer_shuffled", more=odd, ids=120)

    assert outcome.closes, outcome
    assert outcome.letters == []
