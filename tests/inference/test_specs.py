"""The spec of a call validates its own fields and those of its records."""

import json

import pytest

from sage_flink.common import PipelineError, PoolError, Record, Rejected
from sage_flink.inference import Chat, Completion, Embed, Rerank, Retrieve
from sage_flink.inference.chat import ChatPieces


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Embed(""), "embed: model must be a name, got ''"),
        (lambda: Embed("m", into=" "), "embed: into must be a name, got ' '"),
        (lambda: Embed("m", title=None), "embed: title must be a name, or '', got None"),
        (lambda: Chat("m", tokens_max=0), "chat: tokens_max must be at least 1, got 0"),
        (lambda: Chat("m", temperature="hot"), "chat: temperature must be a number from 0 to 2"),
        (lambda: Chat("m", prompt=5), "chat: prompt must be a text, got 5"),
        *(
            (lambda prompt=prompt: Chat("m", prompt=prompt), "chat: prompt must be a text with")
            for prompt in ("{text", "text}", "{}", "{0}", "{a.b}", "{a!r}", "{a:>5}")
        ),
        (lambda: Retrieve("c", top_k=51), "retrieve: top_k must be at most 50, got 51"),
        (lambda: Retrieve(""), "retrieve: collection must be a name, got ''"),
        (lambda: Retrieve("c", where=5), "retrieve: where must be a filter, or its text, got 5"),
        (lambda: Retrieve("c", hybrid="yes"), "retrieve: hybrid must be true or false, got 'yes'"),
        (lambda: Retrieve("c", where="year = 1"), "retrieve: where: filter: at character 1"),
        (lambda: Embed("m", dim=-1), "embed: dim must be the length of a vector, or 0, got -1"),
        (lambda: Rerank("m", top_n=0), "rerank: top_n must be at least 1, got 0"),
        (lambda: Rerank(""), "rerank: model must be a name, got ''"),
        (
            lambda: Completion("m", stop=("",)),
            "completion: stop must be a tuple of at most 4 texts",
        ),
        (lambda: Completion("m", temperature=3), "completion: temperature must be a number from 0"),
    ],
)
def test_an_invalid_spec_is_refused(make, message):
    with pytest.raises(PipelineError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (Embed("m"), "field 'text' is missing"),
        (Chat("m"), "field 'messages' is missing"),
        (Chat("m", prompt="Say {text}"), "field 'text' is missing"),
        (Retrieve("c"), "field 'question' is missing"),
        (Completion("m"), "field 'prompt' is missing"),
        (Rerank("m"), "field 'documents' is missing"),
    ],
)
def test_a_record_without_the_prompt_field_is_rejected(spec, reason):
    with pytest.raises(Rejected, match=reason):
        spec.request(Record("a", {}))


def test_a_title_is_embedded_in_front_of_the_text():
    spec = Embed("m", title="title")

    assert spec.request(Record("a", {"title": "T", "text": "x"})) == b"T\nx"


def test_a_prompt_is_one_message_with_the_texts_of_the_fields():
    spec = Chat("m", prompt='Translate "{text}" to {to}; {{keep}} braces')

    asked = json.loads(spec.request(Record("a", {"text": 'a "b"\n', "to": "{text}"})))

    said = 'Translate "a "b"\n" to {text}; {keep} braces'
    assert asked["messages"] == [{"role": "user", "content": said}]


def test_a_prompt_without_a_field_is_sent_as_it_is():
    asked = json.loads(Chat("m", prompt="Hello").request(Record("a", {})))

    assert asked["messages"] == [{"role": "user", "content": "Hello"}]


def test_a_hybrid_retrieval_asks_for_the_hybrid_ranker():
    record = Record("a", {"question": "What is E42?"})

    assert json.loads(Retrieve("c", top_k=3).request(record)) == {
        "query": "What is E42?",
        "max_num_results": 3,
    }
    hybrid = json.loads(Retrieve("c", hybrid=True).request(record))
    assert hybrid["ranking_options"] == {"ranker": "hybrid"}


def test_a_broken_stream_is_an_error_of_the_pool():
    with pytest.raises(PoolError, match="not an event"):
        ChatPieces().feed(b"data: {broken\n")


def test_a_prompt_is_continued():
    spec, record = Completion("m", tokens_max=5, stop=("\n",)), Record("a", {"prompt": "Once"})
    reply = {"choices": [{"text": " upon", "finish_reason": "stop"}], "usage": {"total_tokens": 2}}

    asked = json.loads(spec.request(record))
    answered = spec.answer(record, json.dumps(reply).encode())

    assert (asked["prompt"], asked["max_tokens"], asked["stop"]) == ("Once", 5, ["\n"])
    assert answered.value == {
        "prompt": "Once",
        "completion": " upon",
        "finish_reason": "stop",
        "usage": {"total_tokens": 2},
    }


def test_documents_are_ranked_best_first():
    spec = Rerank("m", top_n=2)
    record = Record("a", {"question": "q", "documents": ["x", "y", "z"]})
    scores = {0: 0.1, 2: 0.9, 1: 0.5}
    results = [{"index": i, "relevance_score": s, "document": {}} for i, s in scores.items()]

    asked = json.loads(spec.request(record))
    answered = spec.answer(record, json.dumps({"results": results}).encode())

    assert asked == {"model": "m", "query": "q", "documents": ["x", "y", "z"], "top_n": 2}
    assert answered.value["ranking"] == [
        {"index": 2, "relevance_score": 0.9},
        {"index": 1, "relevance_score": 0.5},
    ]


@pytest.mark.parametrize(
    "results", ['{"results": [{"index": 3, "relevance_score": 1}]}', '{"results": [{}]}', "{}", "["]
)
def test_a_ranking_of_unknown_documents_is_rejected(results):
    record = Record("a", {"question": "q", "documents": ["x", "y", "z"]})

    with pytest.raises(Rejected, match="m: the answer is not a ranking"):
        Rerank("m").answer(record, results.encode())


def test_documents_that_are_not_texts_are_rejected():
    with pytest.raises(Rejected, match="field 'documents' must be a list of texts"):
        Rerank("m").request(Record("a", {"question": "q", "documents": ["x", 1]}))


def test_a_vector_of_another_length_is_rejected():
    with pytest.raises(Rejected, match="the vector has dimension 1, not 2"):
        Embed("m", dim=2).answer(Record("a", {}), b"\0" * 4)
