"""A call's spec checks its own fields, however it is made, and its record's."""

import pytest

from sage_flink.common import PipelineError, PoolError, Record, Rejected
from sage_flink.inference import Chat, Embed, Retrieve
from sage_flink.inference.chat import ChatPieces


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Embed(""), "embed: model must be a name, got ''"),
        (lambda: Embed("m", into=" "), "embed: into must be a name, got ' '"),
        (lambda: Embed("m", title=None), "embed: title must be a name, or '', got None"),
        (lambda: Chat("m", tokens_max=0), "chat: tokens_max must be at least 1, got 0"),
        (lambda: Chat("m", temperature="hot"), "chat: temperature must be a number from 0 to 2"),
        (lambda: Retrieve("c", top_k=51), "retrieve: top_k must be at most 50, got 51"),
        (lambda: Retrieve(""), "retrieve: collection must be a name, got ''"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(make, message):
    with pytest.raises(PipelineError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (Embed("m"), "field 'text' is missing"),
        (Chat("m"), "field 'messages' is missing"),
        (Retrieve("c"), "field 'question' is missing"),
    ],
)
def test_a_record_without_the_field_asked_about_is_rejected(spec, reason):
    with pytest.raises(Rejected, match=reason):
        spec.request(Record("a", {}))


def test_a_title_is_embedded_in_front_of_the_text():
    spec = Embed("m", title="title")

    assert spec.request(Record("a", {"title": "T", "text": "x"})) == b"T\nx"


def test_a_broken_stream_is_an_error_of_the_pool():
    with pytest.raises(PoolError, match="not an event"):
        ChatPieces().feed(b"data: {broken\n")
