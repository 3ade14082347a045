"""The words of requests: requests that ask for something else have other words."""

import time

from merge_pairs import marked_pairs

from sage_flink.flow.merging.words import counted_words


def test_no_marked_pair_that_asks_for_something_else_has_the_same_words() -> None:
    pairs = marked_pairs()

    wrong = [p for p in pairs if not p.same and counted_words(p.one) == counted_words(p.other)]
    right = [p for p in pairs if p.same]
    merged = [p for p in right if counted_words(p.one) == counted_words(p.other)]

    assert len(pairs) >= 500
    assert min(len(right), len(pairs) - len(right)) >= 200
    assert wrong == []
    assert len(merged) / len(right) > 0.8
    assert {p.kind for p in right} - {p.kind for p in merged} == {"synonym", "order of words"}


def test_texts_without_letters_and_in_other_languages_are_words_too() -> None:
    different = [
        "",
        "?",
        "!!",
        "🙂",
        "🙃",
        "a",
        "的",
        "東京は",
        "東京は？",
        "5",
        "5!",
        "-5",
        "—",
        "½",
    ]

    assert len({counted_words(text) for text in different}) == len(different)
    assert counted_words("Wie spät ist es?") == counted_words("wie spät ist es ?")
    assert counted_words("caf\u00e9") == counted_words("cafe\u0301")


def test_the_time_for_a_text_grows_as_its_length() -> None:
    began_s = time.process_time()
    for part in ("please ", "hi, ", ".", "!", ".a", " \n", "1,000", "can't ", "İ", "\ud800"):
        counted_words(part * 30_000)
        counted_words(part * 30_000 + "x")

    assert time.process_time() - began_s < 4
