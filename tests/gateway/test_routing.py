"""Which replica gets the next request."""

from sage_gateway.replicas import State
from sage_gateway.routing import Candidate, least_in_flight


def ready(index: int, in_flight: int, missed: int = 0) -> Candidate:
    return Candidate(index, State.READY, missed, in_flight)


def test_the_ready_replica_with_the_fewest_requests_is_chosen() -> None:
    starting = Candidate(2, State.STARTING, 0, 0)

    assert least_in_flight([ready(0, 3), ready(1, 2), starting], concurrency=8) == 1


def test_one_that_missed_a_check_is_the_last_choice() -> None:
    assert least_in_flight([ready(0, 0, missed=1), ready(1, 7)], concurrency=8) == 1
    assert least_in_flight([ready(0, 0, missed=1)], concurrency=8) == 0


def test_a_second_try_goes_to_another_replica_if_there_is_one() -> None:
    assert least_in_flight([ready(0, 0), ready(1, 5)], tried=[0], concurrency=8) == 1
    assert least_in_flight([ready(0, 0)], tried=[0], concurrency=8) == 0


def test_without_room_there_is_no_choice() -> None:
    assert least_in_flight([ready(0, 8), ready(1, 8)], concurrency=8) is None
    assert least_in_flight([], concurrency=8) is None
