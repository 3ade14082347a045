"""Prompts and answers are built from validated fields."""

import pytest

from sage_flink.common import Record, Rejected
from sage_flink.operators import AnswerWithSources, RagPrompt

PASSAGE = {"doc": "d", "title": "T", "text": "words", "score": 0.123456}
ASKED = {"id": "q", "question": "why?", "messages": [], "passages": [PASSAGE]}
ANSWERED = {**ASKED, "answer": "so", "usage": {}, "finish_reason": "stop"}


def test_a_prompt_holds_the_passages_and_the_question():
    (record,) = RagPrompt()(Record("q", ASKED))

    assert record.value["messages"][-1]["content"] == ("Context:\n[1] T\nwords\n\nQuestion: why?")


def test_an_answer_has_one_source_a_document():
    (record,) = AnswerWithSources()(Record("q", {**ANSWERED, "passages": [PASSAGE, PASSAGE]}))

    assert record.value["sources"] == [{**PASSAGE, "score": 0.1235}]


@pytest.mark.parametrize(("step", "value"), [(RagPrompt(), ASKED), (AnswerWithSources(), ANSWERED)])
@pytest.mark.parametrize("name", ["question", "passages"])
def test_a_missing_field_is_named(step, value, name):
    with pytest.raises(Rejected, match=f"^field {name!r} is missing$"):
        step(Record("q", {k: v for k, v in value.items() if k != name}))


def test_a_passage_without_its_title_is_named():
    with pytest.raises(Rejected, match="field 'title' is missing"):
        RagPrompt()(Record("q", {**ASKED, "passages": [{"text": "x"}]}))
