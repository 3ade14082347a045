"""The job question -> retrieve -> prompt -> generate -> answer: one graph for two targets.

On Flink it reads topic ``questions`` and writes topic ``answers``; in the gateway it is the model
``rag`` of ``/v1/chat/completions``, where source and sink are the request and its reply.

Run by ``sage jobs submit rag_answer`` or ``flink run -py rag_answer.py``.
"""

import dataclasses
from dataclasses import dataclass

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.operators import AnswerWithSources, DecodeQuestion, EncodeJson, RagPrompt
from sage_jobs.entry import report_errors, run


@dataclass(frozen=True, slots=True, kw_only=True)
class RagAnswer:
    """Topics, collection and model of the job.

    An answer is one paragraph: a small model without a stop text generates up to ``tokens_max``.
    ``hybrid`` is for a collection with full-text search.
    """

    questions: str = "questions"
    answers: str = "answers"
    collection: str = "docs"
    dead_letters: str = "{job}.dead-letters"
    group: str = "{job}"
    model: str = "smollm2"
    top_k: int = 5
    tokens_max: int = 200
    stop: tuple[str, ...] = ("\n\n",)
    hybrid: bool = False


def build(config: RagAnswer | None = None) -> sage.flow.Graph:
    """The graph; does not contact any server."""
    config = config or RagAnswer()
    return (
        sage.flow.read("questions", kafka(config.questions, group=config.group))
        .flat_map("question", DecodeQuestion())
        .call(
            "retrieve",
            sage.retrieve(collection=config.collection, top_k=config.top_k, hybrid=config.hybrid),
            capacity=16,
            timeout_s=30,
        )
        .flat_map("prompt", RagPrompt())
        .call(
            "generate",
            sage.chat(model=config.model, tokens_max=config.tokens_max, stop=config.stop),
            capacity=4,
            timeout_s=300,
        )
        .flat_map("answer", AnswerWithSources())
        .flat_map("json", EncodeJson())
        .write("answers", kafka(config.answers))
        .dead_letters_to(kafka(config.dead_letters))
    )


def main(
    questions: str = "questions",
    answers: str = "answers",
    collection: str = "docs",
    name: str = "rag_answer",
    hybrid: bool = False,
    options: "sage.flow.FlinkOptions | None" = None,
) -> None:
    """Submit the job."""
    config = dataclasses.replace(
        RagAnswer(),
        questions=questions,
        answers=answers,
        collection=collection,
        hybrid=hybrid,
    )
    print(sage.flow.submit(build(config), name=name, options=options))


if __name__ == "__main__":
    with report_errors("rag_answer"):
        run(main)
