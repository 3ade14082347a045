"""Events of a stream joined into a whole answer: odd ones, which a small model does not send."""

import json

import pytest

from sage_gateway.openai.joined_answer import JoinedAnswer, StreamBrokenError


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def test_the_calls_of_tools_are_joined_by_their_index() -> None:
    joined = JoinedAnswer(1)
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    for calls in (
        [first],
        [{"index": 0, "function": {"arguments": '{"x":'}}],
        [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
        [{"index": 0, "function": {"arguments": "1}"}}],
    ):
        delta = {"role": "assistant", "content": None, "tool_calls": calls}
        joined.add(event(json.dumps({"choices": [{"index": 0, "delta": delta}]})))

    [choice] = json.loads(joined.body())["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_a_stream_is_joined_from_bytes_of_any_size() -> None:
    page = {"choices": [{"index": 0, "delta": {"content": "é"}}], "object": "chat.completion.chunk"}
    raw = event(json.dumps(page, ensure_ascii=False)) * 3 + event("null") + event("[DONE]")
    joined = JoinedAnswer(1)
    for byte in raw:
        joined.add(bytes([byte]))

    assert joined.done
    answer = json.loads(joined.body())
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "ééé"


@pytest.mark.parametrize("raw", [event("{"), b"data: " + b"x" * (9 << 20)])
def test_what_is_no_event_breaks_the_stream(raw: bytes) -> None:
    with pytest.raises(StreamBrokenError):
        JoinedAnswer(1).add(raw)


def test_an_error_in_the_stream_is_the_answer() -> None:
    joined = JoinedAnswer(1)
    joined.add(event('{"error": {"code": 500, "message": "no"}}'))

    assert joined.error == {"code": 500, "message": "no"}
    assert not joined.done
