"""One call in a hundred fails for good, the last record before each checkpoint among them."""


def test_failing_calls_become_letters_and_nothing_is_lost(run, cluster):
    """Errors that no retry mends; a single attempt, so that each of them shows."""
    bad = [(f"bad/{n:04d}", f"[[status=500]] number {n}") for n in range(9)]

    outcome = run(lambda running: None, name="failing_calls", more=bad, attempts_max=1)

    assert outcome.balanced, outcome
    assert sorted(letter["id"] for letter in outcome.dead_letters) == [id_ for id_, _ in bad]
    assert {letter["step"] for letter in outcome.dead_letters} == {"generate"}


def test_the_last_record_before_a_quiet_checkpoint_is_not_lost(run):
    """PyFlink's own operator loses it: its failure is only seen by the record that follows."""
    bad = [("bad/last", "[[status=400]] the last of all")]

    outcome = run(lambda running: None, name="failing_last", more=bad, more_last=True, ids=60)

    assert outcome.balanced, outcome
    assert [letter["id"] for letter in outcome.dead_letters] == ["bad/last"]
