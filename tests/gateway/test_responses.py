"""/v1/responses as OpenAI's client asks there; the engine sees a chat."""

from typing import Any

import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.errors import InvalidRequest
from sage_gateway.openai.decoding import decode
from sage_gateway.openai.schema import ResponsesRequest
from sage_gateway.responses.chat_request import chat_body
from sage_gateway.responses.response_events import ResponseEvents
from sage_gateway.responses.response_object import ResponseObject

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any) -> Any:
    with start({"talk": fake()}) as gateway:
        yield gateway


def test_a_response_has_the_text_the_usage_and_no_stored_state(client: openai.OpenAI) -> None:
    found = client.responses.create(model="talk", input="echo hello there", metadata={"a": "b"})

    assert found.id.startswith("resp_")
    assert (found.status, found.output_text.strip()) == ("completed", "hello there")
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (3, 2)
    assert (found.store, found.metadata) == (False, {"a": "b"})


def test_a_streamed_response_is_the_same_as_a_whole_one(client: openai.OpenAI) -> None:
    with client.responses.stream(model="talk", input="echo hello there") as stream:
        events = list(stream)
        found = stream.get_final_response()

    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert found.output_text == "hello there "


def test_a_response_is_charged_as_its_chat(gateway: Any, client: openai.OpenAI) -> None:
    before = gateway.engine_stats()["requests"]
    client.responses.create(model="talk", input="echo hi")

    assert gateway.engine_stats()["requests"] == before + 1
    counts = gateway.gateway.inference.tracking.metrics.requests
    assert {route for route, _, _ in counts} == {"/v1/chat/completions"}


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_engine_is_that_of_the_response(gateway: Any, stream: bool) -> None:
    body = {"model": "talk", "input": "status 500", "stream": stream}
    answer = gateway.client.post("/v1/responses", json=body)

    assert answer.status_code == 502


def test_a_stream_that_breaks_off_ends_with_a_failed_response(gateway: Any) -> None:
    body = {"model": "talk", "input": "cut 2", "stream": True}
    events = gateway.client.post("/v1/responses", json=body).text.strip().split("\n\n")

    assert events[-2].startswith("event: error\n")
    assert events[-1].startswith("event: response.failed\n")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "judge", "content": "x"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{**WEATHER, "name": ""}]}, "tools[0].name"),
        ({"tools": [{**WEATHER, "description": 5}]}, "tools[0].description"),
        ({"tools": [{**WEATHER, "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [{**WEATHER, "strict": "yes"}]}, "tools[0].strict"),
        ({"top_logprobs": "five"}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "any", "tools": [WEATHER]}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "weather"}}, "tool_choice.name"),
        (
            {"tool_choice": {"type": "function", "name": "time"}, "tools": [WEATHER]},
            "tool_choice.name",
        ),
        ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "tool_choice.name"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"seed": "one"}, "seed"),
    ],
)
def test_what_has_no_counterpart_in_a_chat_is_named(
    gateway: Any, more: dict[str, Any], param: str
) -> None:
    answer = gateway.client.post("/v1/responses", json={"model": "talk", "input": "x", **more})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def chat_of(**fields: Any) -> dict[str, Any]:
    fields = {"model": "m", "input": "hi", **fields}
    request = decode(orjson.dumps(fields), ResponsesRequest)
    found: dict[str, Any] = orjson.loads(chat_body(request, fields))
    return found


def test_a_conversation_with_calls_of_functions_is_that_of_a_chat() -> None:
    found = chat_of(
        instructions="be brief",
        input=[
            {"role": "developer", "content": "no jokes"},
            {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "time", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "sun"},
        ],
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}},
        max_output_tokens=7,
    )

    calls = [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
        {"id": "2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    assert found["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "system", "content": "no jokes"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "sun"},
    ]
    assert found["tools"][0]["function"]["name"] == "weather"
    assert found["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert found["response_format"]["json_schema"]["name"] == "n"
    assert found["max_tokens"] == 7


async def test_streamed_calls_of_functions_become_items_of_their_own() -> None:
    def chunk(finish: str | None = None, **delta: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"

    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments, **more}}

    async def chunks() -> Any:
        yield chunk(content="let me see")
        yield chunk(tool_calls=[call(0, "", name="weather") | {"id": "call_1"}])
        yield chunk(tool_calls=[call(0, '{"city":')])
        yield chunk(tool_calls=[call(0, '"Rome"}')])
        yield chunk(tool_calls=[call(1, "{}", name="time") | {"id": "call_2"}])
        yield chunk("tool_calls") + b"data: [DONE]\n\n"

    request = decode(b'{"model": "m", "input": "x"}', ResponsesRequest)
    events = b"".join([e async for e in ResponseEvents(ResponseObject(request, {})).of(chunks())])
    pages = [orjson.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: ")]

    output = pages[-1]["response"]["output"]
    assert pages[-1]["type"] == "response.completed"
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert [(i["call_id"], i["name"], i["arguments"]) for i in output[1:]] == [
        ("call_1", "weather", '{"city":"Rome"}'),
        ("call_2", "time", "{}"),
    ]
    assert {page["output_index"] for page in pages if "output_index" in page} == {0, 1, 2}


NAMES = ["type", "role", "content", "text", "name", "call_id", "arguments", "output"]
WORDS = st.sampled_from(["message", "function_call", "function_call_output", "user", "input_text"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text() | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), JSON)))
def test_any_input_is_a_chat_or_a_400_that_names_a_part_of_it(items: list[Any]) -> None:
    fields = {"model": "m", "input": items}
    request = decode(orjson.dumps(fields), ResponsesRequest)
    try:
        found = chat_body(request, fields)
    except InvalidRequest as error:
        found, param = b"", error.param

    assert found or (param or "").startswith("input")
