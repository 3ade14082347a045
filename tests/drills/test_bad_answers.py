"""Invalid engine answers are retried if that may help, otherwise dead-lettered, never stored."""

from job_restarts import own_restarts

#: Script for the engine, and the steps that may dead-letter the record: the call detects a vector
#: of a wrong dimension by the other vectors of its request; a single one is refused by the store.
RUBBISH = {
    "truncated": ("[[half_json]]", {"generate"}),
    "error_200": ("[[error_200]]", {"generate"}),
    "dimension": ("[[dim=7]]", {"embed", "vectors"}),
    "nan": ("[[nan]]", {"embed"}),
    "one_few": ("[[one_few]]", {"embed"}),
}
RECORDS = range(5)


def test_invalid_answers_are_dead_lettered_and_never_stored(run):
    bad = [
        (f"{kind}/{n}", f"{script} {n}") for kind, (script, _) in RUBBISH.items() for n in RECORDS
    ]
    odd = [(f"shuffled/{n}", f"[[shuffled]] {n}") for n in RECORDS]

    jobs = []
    outcome = run(
        lambda running: jobs.append(running.job_id),
        name="bad_answers",
        more=bad + odd,
        attempts_max=2,
    )

    assert outcome.is_balanced, outcome  # the shuffled vectors too, each with its own text
    assert own_restarts(*jobs) == 0
    assert sorted(letter["id"] for letter in outcome.dead_letters) == sorted(id_ for id_, _ in bad)
    for letter in outcome.dead_letters:
        assert letter["step"] in RUBBISH[letter["id"].split("/")[0]][1], letter
