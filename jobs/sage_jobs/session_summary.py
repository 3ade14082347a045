"""The job events -> sessions of each user -> a summary by the model -> topic and telemetry.

An event is JSON: ``{"user": "anna", "at": 1700000000000, "action": "opened a page"}``. A session
ends when its user has been silent for ``gap_s`` seconds of event time.

Run by ``sage jobs submit session_summary`` or ``flink run -py session_summary.py``.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import sage_flink as sage
from sage_connectors import Json, kafka
from sage_flink.common import Record
from sage_flink.common.values import require_field
from sage_flink.flow import Collect, Count, Session
from sage_flink.operators import Measure
from sage_jobs.entry import report_errors, run


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """Topics, times and model of the job.

    ``actions_max`` of a session's actions are kept for the prompt, the first that arrive.
    """

    events: str = "events"
    summaries: str = "summaries"
    late: str = "{job}.late"
    dead_letters: str = "{job}.dead-letters"
    group: str = "{job}"
    bucket: str = "sessions"
    model: str = "smollm2"
    gap_s: float = 1_800.0
    out_of_order_s: float = 10.0
    idle_s: float = 60.0
    actions_max: int = 50
    tokens_max: int = 60


@dataclass(frozen=True, slots=True)
class SummaryPrompt:
    """The value of a session's window -> the same with ``messages`` for a chat model."""

    instructions: str = "You summarize what a user did, in one short sentence."

    def __call__(self, record: Record) -> Iterable[Record]:
        """The record with its messages."""
        actions = require_field(record, "actions", list)
        asked = "The user did this:\n" + "\n".join(f"- {action}" for action in actions)
        messages = [
            {"role": "system", "content": self.instructions},
            {"role": "user", "content": asked},
        ]
        yield record.replace(value={**record.value, "messages": messages})


@dataclass(frozen=True, slots=True)
class Summary:
    """The session as readers get it."""

    def __call__(self, record: Record) -> Iterable[Record]:
        """``{user, start_ms, end_ms, duration_s, events, summary}``.

        The end is that of the gap, the duration ends with the last event.
        """
        value = record.value
        yield record.replace(
            value={
                "user": value["key"],
                "start_ms": value["start_ms"],
                "end_ms": value["end_ms"],
                "duration_s": (value["last_ms"] - value["start_ms"]) / 1000,
                "events": value["events"],
                "summary": require_field(record, "answer", str).strip(),
            }
        )


def build(config: SessionSummary | None = None) -> sage.flow.Graph:
    """The graph; does not contact any server."""
    config = config or SessionSummary()
    events = kafka(config.events, group=config.group, format=Json())
    sessions = (
        sage.flow.read("events", events)
        .event_time("time", field="at", out_of_order_s=config.out_of_order_s, idle_s=config.idle_s)
        .key_by("by-user", "user")
        .window(
            "sessions",
            Session(config.gap_s),
            {
                "events": Count(),
                "last_ms": sage.flow.Max("at"),
                "actions": Collect("action", items_max=config.actions_max),
            },
        )
    )
    chat = sage.chat(model=config.model, tokens_max=config.tokens_max)
    summaries = (
        sessions.flat_map("prompt", SummaryPrompt())
        .call("summarize", chat, capacity=4, timeout_s=300)
        .flat_map("summary", Summary())
    )
    points = summaries.flat_map("measure", Measure("session", ("events", "duration_s")))
    return sage.flow.pipeline(
        summaries.write("summaries", kafka(config.summaries, format=Json())),
        points.write("telemetry", sage.tsdb.bucket(config.bucket)),
        sessions.late("late").write("late-events", kafka(config.late, format=Json())),
    ).dead_letters_to(kafka(config.dead_letters))


def main(
    events: str = "events",
    summaries: str = "summaries",
    gap_s: float = 1_800.0,
    out_of_order_s: float = 10.0,
    idle_s: float = 60.0,
    bucket: str = "sessions",
    name: str = "session_summary",
    options: "sage.flow.FlinkOptions | None" = None,
) -> None:
    """Submit the job."""
    config = dataclasses.replace(
        SessionSummary(),
        events=events,
        summaries=summaries,
        gap_s=gap_s,
        out_of_order_s=out_of_order_s,
        idle_s=idle_s,
        bucket=bucket,
    )
    print(sage.flow.submit(build(config), name=name, options=options))


if __name__ == "__main__":
    with report_errors("session_summary"):
        run(main)
