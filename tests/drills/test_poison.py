"""Poison records among good ones: each is dead-lettered once, without a restart."""

from job_restarts import own_restarts

from benchmark_sage.recovery import event

POISON = {
    "broken JSON": (b'{"id": "x", ', "decode"),
    "a missing field": (b'{"id": "x"}', "decode"),
    "empty text": (b'{"id": "poison/empty", "text": ""}', "decode"),
    "10 MB of text": (event("poison/large", "word " * 2_000_000), "generate"),
    "NUL": (b'{"id": "poison/nul", "text": "[[status=400]] a\\u0000b"}', "generate"),
    "invalid UTF-8": (b'{"id": "x", "text": "\xff\xfe"}', "decode"),
    "an engine's 400": (event("poison/400", "[[status=400]]"), "generate"),
    "context overflow": (event("poison/413", "[[status=413]]"), "generate"),
}


def test_poison_is_dead_lettered_once_and_good_records_are_untouched(run):
    poison = [(name, raw) for name, (raw, _) in POISON.items()]

    jobs = []
    outcome = run(lambda running: jobs.append(running.job_id), name="poison", raw=poison)

    assert outcome.is_balanced, outcome
    assert own_restarts(*jobs) == 0
    assert (
        len({letter["id"] for letter in outcome.dead_letters})
        == len(outcome.dead_letters)
        == len(POISON)
    )
    steps = sorted(letter["step"] for letter in outcome.dead_letters)
    assert steps == sorted(step for _, step in POISON.values())
    assert all(letter["reason"] for letter in outcome.dead_letters)
