"""A chat that must call one function, sent to an engine that knows only ``required``."""

from typing import Any

import orjson
import pytest

from sage_gateway.engines import ENGINES
from sage_gateway.inference.model_inference import only_named_tool
from sage_gateway.openai.schema import ModelRequest
from sage_gateway.requests.request import Request, read_request


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"x": [1.50]}}}


def chat(choice: object) -> tuple[Request, ModelRequest]:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tool_choice": choice}
    body["tools"] = [tool("weather"), tool("time")]
    request = read_request("/v1/chat/completions", {}, orjson.dumps(body))
    assert request.invalid is None
    return request, request.payload  # type: ignore[return-value]


def test_the_named_tool_is_the_only_one_and_required() -> None:
    found = only_named_tool(*chat({"type": "function", "function": {"name": "time"}}))

    assert found == {"tools": [tool("time")], "tool_choice": "required"}


@pytest.mark.parametrize("choice", ["auto", "none", "required", None])
def test_another_choice_is_left_as_it_is(choice: str | None) -> None:
    assert only_named_tool(*chat(choice)) == {}


@pytest.mark.parametrize(("engine", "follows"), [("llamacpp", False), ("vllm", True)])
def test_llamacpp_does_not_follow_a_choice_that_names_a_tool(engine: str, follows: bool) -> None:
    assert ENGINES[engine].calls_named_tools is follows
