"""kill -9 of the gateway, away for ten seconds: jobs wait, and what was recorded is not paid again.

What the engine had finished and the gateway had not yet recorded is asked again: no more than was
in flight.
"""

import time
from collections import Counter

AWAY_S = 10.0
CAPACITY = 64
#: So long after the engine finished an answer, it is recorded.
RECORDED_S = 1.0


def test_a_gateway_that_was_away_costs_no_second_generation(run, cluster):
    recorded = set()

    def fault(running):
        recorded.update(cluster.generations("mock-chat")[before:])
        running.notes["paid_before"] = len(recorded)
        time.sleep(RECORDED_S)
        with running.cluster.away("gateway"):
            time.sleep(AWAY_S)

    before = len(cluster.generations("mock-chat"))
    outcome = run(fault, name="gateway_away", capacity=CAPACITY)

    paid = Counter(cluster.generations("mock-chat")[before:])
    assert outcome.balanced, outcome
    assert outcome.restarts == 0
    assert paid.total() - len(paid) <= CAPACITY, paid.most_common(3)
    assert recorded
    assert {paid[id_] for id_ in recorded} == {1}
