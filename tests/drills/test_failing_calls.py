"""One call in a hundred fails permanently, also that of the last record before a checkpoint."""


def test_failing_calls_become_dead_letters_and_no_record_is_lost(run, cluster):
    """Permanent errors; with a single attempt, so that each of them is visible."""
    bad = [(f"bad/{n:04d}", f"[[status=500]] number {n}") for n in range(9)]

    outcome = run(lambda running: None, name="failing_calls", more=bad, attempts_max=1)

    assert outcome.is_balanced, outcome
    assert sorted(letter["id"] for letter in outcome.dead_letters) == [id_ for id_, _ in bad]
    assert {letter["step"] for letter in outcome.dead_letters} == {"generate"}


def test_the_last_record_before_a_quiet_checkpoint_is_not_lost(run):
    """PyFlink's own operator loses it: it reports a failure only with the next record."""
    bad = [("bad/last", "[[status=400]] the last of all")]

    outcome = run(lambda running: None, name="failing_last", more=bad, more_last=True, ids=60)

    assert outcome.is_balanced, outcome
    assert [letter["id"] for letter in outcome.dead_letters] == ["bad/last"]
