"""The items of a response, from a whole chat and from its stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from sage_gateway.openai.decoding import decode
from sage_gateway.openai.schema import ResponsesRequest
from sage_gateway.responses.chat_request import chat_body
from sage_gateway.responses.response_events import ResponseEvents
from sage_gateway.responses.response_object import ResponseObject

Fields = dict[str, Any]
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 4,
    "completion_tokens_details": {"reasoning_tokens": 3},
}
LOGPROBS = {"include": ["message.output_text.logprobs"]}


def response_to(fields: Fields) -> ResponseObject:
    request = {"model": "m", "input": "hi", **fields}
    return ResponseObject(decode(orjson.dumps(request), ResponsesRequest), request)


def chat_of(**fields: Any) -> Fields:
    request = {"model": "m", "input": "hi", **fields}
    body = chat_body(decode(orjson.dumps(request), ResponsesRequest), request)
    found: Fields = orjson.loads(body)
    return found


def whole(message: Fields, finish: str = "stop", **fields: Any) -> Fields:
    """The response to a request with ``fields``, from a whole chat with ``logprobs``."""
    logprobs = {"content": fields.pop("logprobs", [])}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}
    body = response_to(fields).of_chat(orjson.dumps({"choices": [choice], "usage": USAGE}))
    found: Fields = orjson.loads(body)
    return found


async def streamed(choices: Sequence[Fields], finish: str = "stop", **fields: Any) -> list[Fields]:
    """The events of the response to a request with ``fields``, from the chunks of a chat."""

    async def chunks() -> AsyncIterator[bytes]:
        for choice in (*choices, {"delta": {}, "finish_reason": finish}):
            yield b"data: " + orjson.dumps({"choices": [{"index": 0, **choice}]}) + b"\n\n"
        yield b"data: [DONE]\n\n"

    events = b"".join([e async for e in ResponseEvents(response_to(fields)).of(chunks())])
    return [orjson.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: ")]


def logprob(token: str, *others: str) -> Fields:
    """The log probability of a token, as a chat of llama.cpp has it."""
    own = {"id": 7, "token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return own | ({"top_logprobs": [logprob(o) for o in others]} if others else {})


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({}, {}),
        ({"top_logprobs": 3}, {}),
        (LOGPROBS, {"logprobs": True, "top_logprobs": 1}),
        ({**LOGPROBS, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ],
)
def test_log_probabilities_are_asked_for_where_the_response_includes_them(
    fields: Fields, chat: Fields
) -> None:
    found = chat_of(**fields)

    assert {name: found[name] for name in ("logprobs", "top_logprobs") if name in found} == chat


def test_how_tokens_are_chosen_is_that_of_the_chat() -> None:
    sampling = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "seed": 42,
        "stop": ["END"],
        "chat_template_kwargs": {"enable_thinking": False},
    }

    assert sampling.items() <= chat_of(**sampling, unknown=1, min_p=None).items()
    assert not {"unknown", "min_p"} & set(chat_of(**sampling, unknown=1, min_p=None))


@pytest.mark.parametrize("choice", ["auto", "none"])
@pytest.mark.parametrize("tools", [None, []])
def test_without_tools_a_choice_that_needs_none_is_left_out(choice: str, tools: Any) -> None:
    assert not {"tools", "tool_choice"} & set(chat_of(tool_choice=choice, tools=tools))


@pytest.mark.parametrize(("count", "others"), [(0, []), (1, ["Hi"]), (2, ["Hi", "Yo"])])
async def test_a_text_has_the_log_probabilities_that_were_asked_for(
    count: int, others: list[str]
) -> None:
    fields: Fields = {**LOGPROBS, "top_logprobs": count}
    content = [logprob("Hi", "Hi", "Yo"), logprob("!", "!", "?")]
    events = await streamed(
        [{"delta": {"content": one["token"]}, "logprobs": {"content": [one]}} for one in content],
        **fields,
    )

    found = whole({"content": "Hi!"}, logprobs=content, **fields)
    [part] = found["output"][0]["content"]
    assert [one["token"] for one in part["logprobs"]] == ["Hi", "!"]
    assert [one["token"] for one in part["logprobs"][0]["top_logprobs"]] == others
    assert set(part["logprobs"][0]) == {"token", "logprob", "bytes", "top_logprobs"}
    deltas = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]
    assert deltas == [[one] for one in part["logprobs"]]
    assert events[-1]["response"]["output"][0]["content"] == [part]
    assert found["top_logprobs"] == count


async def test_log_probabilities_that_were_not_asked_for_are_left_out() -> None:
    content = [logprob("Hi", "Hi")]
    events = await streamed([{"delta": {"content": "Hi"}, "logprobs": {"content": content}}])
    found = whole({"content": "Hi"}, logprobs=content)

    assert found["output"][0]["content"][0]["logprobs"] == []
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == []


def without_ids(items: list[Fields]) -> list[Fields]:
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_the_reasoning_of_a_model_is_an_item_before_its_message(field: str) -> None:
    deltas = [{field: "The user "}, {field: "greets."}, {"content": "Hi"}]
    events = await streamed([{"delta": delta} for delta in deltas])
    found = whole({field: "The user greets.", "content": "Hi"})

    reasoned, said = found["output"]
    assert reasoned["content"] == [{"type": "reasoning_text", "text": "The user greets."}]
    assert (reasoned["type"], reasoned["summary"]) == ("reasoning", [])
    assert said["content"][0]["text"] == "Hi"
    assert found["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert without_ids(events[-1]["response"]["output"]) == without_ids(found["output"])
    assert [e["type"].removeprefix("response.") for e in events[2:8]] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
    ]


def test_the_effort_of_reasoning_is_that_of_the_chat_and_is_shown() -> None:
    reasoning = {"effort": "low", "summary": "auto"}

    assert chat_of(reasoning=reasoning)["reasoning_effort"] == "low"
    assert "reasoning_effort" not in chat_of(reasoning={"summary": "auto"})
    assert whole({"content": "Hi"}, reasoning=reasoning)["reasoning"] == reasoning


CALL = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city": "Ro'}}


@pytest.mark.parametrize(
    ("finish", "status"),
    [("stop", "completed"), ("length", "incomplete"), ("content_filter", "incomplete")],
)
@pytest.mark.parametrize(
    ("message", "statuses"),
    [
        ({"content": "Hi"}, []),
        ({"content": None, "tool_calls": [CALL]}, []),
        ({"content": "Let me see", "tool_calls": [CALL]}, ["completed"]),
        ({"content": None}, []),
        ({"content": ""}, []),
    ],
)
async def test_the_last_item_of_a_response_that_was_cut_short_is_incomplete(
    message: Fields, statuses: list[str], finish: str, status: str
) -> None:
    found = whole(message, finish)
    events = await streamed([{"delta": message}], finish)

    assert found["status"] == status
    assert [item["status"] for item in found["output"]] == [*statuses, status]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert events[-1]["type"] == f"response.{status}"
    assert done == events[-1]["response"]["output"]
    assert without_ids(done) == without_ids(found["output"])


async def test_an_answer_without_a_text_is_a_message_without_one() -> None:
    events = await streamed([])
    [item] = whole({"content": None})["output"]

    assert [part["text"] for part in item["content"]] == [""]
    assert without_ids(events[-1]["response"]["output"]) == without_ids([item])
