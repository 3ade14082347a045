"""Windows cover the whole text, overlap, and never cut a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import PipelineError, Record, Rejected
from sage_flink.operators import Chunk
from sage_flink.operators.chunk import windows, with_breaks


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=200),
    tokens_max=st.integers(8, 50),
    overlap=st.integers(0, 4),
)
def test_windows_cover_every_token_and_start_at_words(lengths, tokens_max, overlap):
    words = [word for word, tokens in enumerate(lengths) for _ in range(tokens)]
    offsets = [(at * 2, at * 2 + 1) for at in range(len(words))]

    spans = list(windows(words, offsets, tokens_max, overlap))

    covered = {o for start, end, _ in spans for o in offsets if start <= o[0] and o[1] <= end}
    assert covered == set(offsets)
    assert all(tokens <= tokens_max for _, _, tokens in spans)
    starts = {start for start, _, _ in spans}
    firsts = {offsets[at][0] for at, word in enumerate(words) if at == 0 or words[at - 1] != word}
    assert starts <= firsts


def test_a_word_longer_than_a_window_is_cut():
    spans = list(windows([0] * 30, [(i, i + 1) for i in range(30)], 10, 2))

    assert spans[0] == (0, 10, 10)
    assert spans[-1][1] == 30


def test_an_empty_text_has_no_windows():
    assert list(windows([], [], 10, 2)) == []


@pytest.mark.parametrize(
    ("tokens_max", "overlap", "message"),
    [
        (0, 0, "chunk: tokens_max must be at least 1, got 0"),
        (10, 6, "chunk: overlap must be at most 5, half a window, got 6"),
        (10, -1, "chunk: overlap must be at least 0, got -1"),
        ("10", 1, "chunk: tokens_max must be a whole number, got '10'"),
    ],
)
def test_an_impossible_window_is_refused(tokens_max, overlap, message):
    with pytest.raises(PipelineError, match=f"^{message}$"):
        Chunk(tokens_max, overlap)


def test_a_record_that_is_no_document_is_rejected():
    with pytest.raises(Rejected, match="field 'title' is missing"):
        list(Chunk(10, 1)(Record("a", {"doc": "a", "text": "x"})))


def split(origin="t/0/1", tokens_max=10, **changes):
    value = {"doc": "a", "title": "A", "text": "one two three " * 9, **changes}
    *chunks, last = Chunk(tokens_max, 1)(Record("a", value, origin=origin))
    return {chunk["version"] for chunk in chunks}, last


def test_a_delete_of_other_versions_follows_the_chunks():
    versions, last = split()

    (version,) = versions
    assert (last.kind, last.document, last.version) == ("delete", "a", version)
    assert last.id not in {Record("a", None).child("split", n, None).id for n in range(100)}


def test_a_text_without_a_token_leaves_no_chunk():
    chunks, last = split(text="\u200b")

    assert chunks == set()
    assert last.document == "a"


def test_a_version_is_the_same_on_replay_and_differs_for_another_text():
    (first,), _ = split()

    assert split()[0] == {first}
    for other in (split(origin="t/0/2"), split(text="two"), split(title="B"), split(tokens_max=9)):
        assert other[0] != {first}


@pytest.mark.parametrize("sign", ["ก", "ACGT", "あ", "한", "QUJDRA=="])
def test_a_text_without_blanks_is_cut_into_known_words(sign):
    text = sign * (20_000 // len(sign))
    document = Record("d", {"doc": "d", "title": "t", "text": text})

    chunks = [c for c in Chunk(tokens_max=100, overlap=10)(document) if isinstance(c, dict)]

    assert len(chunks) > 20
    assert all(20 <= chunk["tokens"] <= 100 for chunk in chunks[:-1])
    assert all(len(word) <= 64 for chunk in chunks for word in chunk["text"].split())


@pytest.mark.parametrize("sign", ["ລ", "ក"])
def test_a_text_of_letters_that_the_model_does_not_know_is_cut_by_characters(sign):
    document = Record("d", {"doc": "d", "title": "t", "text": sign * 20_000})

    chunks = [c for c in Chunk(tokens_max=100, overlap=10)(document) if isinstance(c, dict)]

    assert len(chunks) > 5
    assert all(len(chunk["text"]) < 100 * 33 for chunk in chunks)


def test_words_are_not_changed():
    text = "a word of " + "x" * 100 + " signs\tand\nlines"

    assert with_breaks(text) == text
