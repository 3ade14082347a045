"""A job in its own file: numbered events -> a slow call -> a topic, each number once."""

from collections.abc import Iterable
from dataclasses import dataclass

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import Record
from sage_flink.operators import EncodeJson
from sage_jobs.entry import report_errors, run


@dataclass(frozen=True)
class Question:
    """The event's number as a question; the record takes the number as its id."""

    def __call__(self, record: Record) -> Iterable[Record]:
        number = record.value.decode()
        value = {"messages": [{"role": "user", "content": f"Number {number}."}]}
        yield record.replace(id=number, value=value)


@dataclass(frozen=True)
class Short:
    """The record without its question: the answer, and the mark of the run."""

    mark: str

    def __call__(self, record: Record) -> Iterable[Record]:
        yield record.replace(value={"answer": record.value["answer"], "mark": self.mark})


def build(name: str, ask: str, mark: str, again: bool) -> sage.flow.Graph:
    retry = sage.flow.Retry(attempts_max=10)
    limits = {"capacity": 256, "timeout_s": 120, "retry": retry}
    asked = (
        sage.flow.read("numbers", kafka(f"{name}.in", group=name))
        .flat_map("question", Question())
        .call(ask, sage.chat(model="mock-chat", tokens_max=8), **limits)
    )
    if again:
        asked = asked.call("again", sage.chat(model="mock-again", tokens_max=8), **limits)
    return (
        asked.flat_map("short", Short(mark))
        .flat_map("json", EncodeJson())
        .write("answers", kafka(f"{name}.out"))
        .dead_letters_to(kafka(f"{name}.dead"))
    )


def main(
    name: str = "numbered",
    ask: str = "ask",
    mark: str = "first",
    again: bool = False,
    options: "sage.flow.FlinkOptions | None" = None,
) -> None:
    """Submit the job."""
    print(sage.flow.submit(build(name, ask, mark, again), name=name, options=options))


if __name__ == "__main__":
    with report_errors("numbered"):
        run(main)
