"""kill -9 of the gateway, down for 10 s: jobs wait; no recorded answer is generated again.

Answers that the engine had finished and the gateway had not yet recorded are generated again: at
most as many as were in flight.
"""

import time
from collections import Counter

from job_restarts import own_restarts

AWAY_S = 10.0
CAPACITY = 64
#: Seconds after which an answer of the engine is certainly recorded.
RECORDED_S = 1.0


def test_a_killed_gateway_causes_no_second_generation_of_recorded_answers(run, cluster):
    recorded, jobs = set(), []

    def fault(running):
        jobs.append(running.job_id)
        recorded.update(cluster.generations("mock-chat")[before:])
        running.notes["paid_before"] = len(recorded)
        time.sleep(RECORDED_S)
        with running.cluster.away("gateway"):
            time.sleep(AWAY_S)

    before = len(cluster.generations("mock-chat"))
    outcome = run(fault, name="gateway_away", capacity=CAPACITY)

    paid = Counter(cluster.generations("mock-chat")[before:])
    assert outcome.is_balanced, outcome
    assert own_restarts(*jobs) == 0
    assert paid.total() - len(paid) <= CAPACITY, paid.most_common(3)
    assert recorded
    assert {paid[id_] for id_ in recorded} == {1}
