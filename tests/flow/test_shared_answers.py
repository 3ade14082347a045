"""Answers that requests share: how long and how many are kept, and which is the nearest."""

import math
import struct

from sage_flink.flow.merging.answers import ANSWER_BYTES_MAX, SharedAnswers
from sage_flink.flow.merging.requests import MergeKey


def test_answers_are_kept_up_to_a_time_a_number_and_64_mib() -> None:
    answers = SharedAnswers[str](threshold=0.9, within_s=10, answers_max=2)
    keys = [MergeKey(bytes([n]), struct.pack("<2f", 1, 0)) for n in range(3)]

    answers.add(keys[0], "zero", 0.0)
    assert answers.find(keys[0], 9.9) == "zero"
    assert answers.find(keys[0], 10.0) is None

    for n, name in enumerate(["a", "b", "c"]):
        answers.add(keys[n], name, 20.0)
    assert [answers.find(key, 21.0) for key in keys] == [None, "b", "c"]
    answers.keep("b", 1)
    answers.keep("c", ANSWER_BYTES_MAX)
    assert [answers.find(key, 21.0) for key in keys] == [None, None, "c"]
    answers.remove("c")
    assert answers.find(keys[2], 21.0) is None


def test_the_nearest_answer_is_shared_and_what_shared_it_leads_no_other() -> None:
    def at(degrees: float) -> MergeKey:
        turn = math.radians(degrees)
        return MergeKey(b"g", struct.pack("<2f", math.cos(turn), math.sin(turn)))

    answers = SharedAnswers[str](threshold=math.cos(math.radians(10)), within_s=10, answers_max=9)
    answers.add(at(0), "zero", 0.0)
    answers.add(at(15), "fifteen", 0.0)

    assert answers.find(at(10), 1.0) == "fifteen"
    assert answers.find(at(5), 1.0) == "zero"
    assert answers.find(at(25), 1.0) == "fifteen"  # at the threshold
    assert answers.find(at(26), 1.0) is None
