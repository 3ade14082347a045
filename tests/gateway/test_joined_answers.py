"""llama.cpp's whole answers, joined from its streams, and what happens when their clients leave.

The gateway and llama.cpp's own server are real; the model is SmolLM2 of 135 million parameters.
"""

import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from sage_flink.common.settings import sage_cache
from sage_gateway.openai.logprobs import LogprobForm

pytestmark = [pytest.mark.timeout(300)]

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
}
#: Also on a busy machine; the whole answers would take longer, and have 1,500 tokens.
WITHIN_S = 5.0


def messages(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


FRANCE = messages("What is the capital of France?")
JSON_CITY = {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a chat": (CHAT, FRANCE),
    "one token": (CHAT, {**FRANCE, "max_tokens": 1}),
    "log probabilities": (CHAT, {**FRANCE, "logprobs": True, "top_logprobs": 2}),
    "letters of several tokens": (CHAT, {**messages("Write: 東京 🎉 Ελλάδα"), "max_tokens": 24}),
    "a letter of several tokens first": (CHAT, {**FRANCE, "grammar": 'root ::= "👩🏫"'}),
    "a stop word": (CHAT, {**FRANCE, "stop": ["la"]}),
    "a stop word as the first word": (CHAT, {**FRANCE, "stop": ["L'"]}),
    "a tool": (CHAT, {**FRANCE, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 40}),
    "json": (CHAT, {**FRANCE, "response_format": JSON_CITY, "max_tokens": 40}),
    "two choices": (CHAT, {**FRANCE, "n": 2}),
    "a completion": (COMPLETION, {"prompt": "Once upon a time"}),
    "a completion of tokens": (COMPLETION, {"prompt": [504, 3575, 282]}),
    "a completion with log probabilities": (COMPLETION, {"prompt": "Once upon", "logprobs": 2}),
    "three prompts": (COMPLETION, {"prompt": ["Once upon", "In a", "The"]}),
    "a false stream": (CHAT, {**FRANCE, "stream": False}),
}
#: What differs from call to call, of the same engine too.
OWN = ("id", "created", "timings")


@pytest.fixture(scope="module")
def gateway(start: Any) -> Iterator[Any]:
    model = {
        "engine": "llamacpp",
        "kind": "chat",
        "source": str(sage_cache() / "models" / "smollm2-135m-instruct.gguf"),
        "slots": 4,
        "threads": 1,
        "health": {"start_timeout_s": 120, "timeout_s": 20},
    }
    with start({"talk": model}, wait=False) as gateway:
        gateway.until(gateway.healthy, 120)
        gateway.client.timeout = 120
        yield gateway


def engine_url(gateway: Any, path: str) -> str:
    url: str = gateway.pool.models["talk"].replica_slots[0].url(path)
    return url


def both(gateway: Any, path: str, fields: dict[str, Any]) -> tuple[Any, Any]:
    """The engine's own whole answer, and that of the gateway."""
    body = {"model": "talk", "temperature": 0, "seed": 1, "max_tokens": 8, **fields}
    body["cache_prompt"] = False  # an answer from a cached prompt may differ in its last digits
    own = httpx.post(engine_url(gateway, path), json=body, timeout=120, verify=False)
    joined = gateway.client.post(path, json=body)
    assert (own.status_code, joined.status_code) == (200, 200), joined.text
    return own.json(), joined.json()


def rounded(value: Any) -> Any:
    """``value`` with its log probabilities rounded, which depend on the batch."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 2) if isinstance(value, float) else value


@pytest.mark.parametrize(("path", "fields"), REQUESTS.values(), ids=REQUESTS)
def test_the_joined_answer_is_the_engines_own_whole_answer(
    gateway: Any, path: str, fields: dict[str, Any]
) -> None:
    own, joined = both(gateway, path, fields)
    if path == COMPLETION and "logprobs" in fields:  # the engine gives them as those of a chat
        [choice], form = own["choices"], LogprobForm(True, fields["logprobs"])
        choice["logprobs"] = form.convert(choice["logprobs"], 0)

    assert set(own) == set(joined)
    assert set(own["timings"]) == set(joined["timings"])
    assert joined["timings"]["predicted_n"] == own["timings"]["predicted_n"]
    if len(own["choices"]) > 1:  # the engine counts the tokens of the first choice only
        del own["usage"], joined["usage"]
    assert {k: v for k, v in rounded(own).items() if k not in OWN} == {
        k: v for k, v in rounded(joined).items() if k not in OWN
    }


def test_before_a_stop_word_every_piece_of_the_text_has_its_log_probability(gateway: Any) -> None:
    stop = {"stop": ["la"], "logprobs": True, "max_tokens": 12}
    own, joined = both(gateway, CHAT, {**FRANCE, **stop})

    [mine], [engines] = joined["choices"], own["choices"]
    tokens = [one["token"] for one in mine["logprobs"]["content"]]
    assert mine["message"] == engines["message"]
    assert "".join(tokens) == mine["message"]["content"]
    assert [one["token"] for one in engines["logprobs"]["content"]] == tokens[:-1]


@pytest.mark.parametrize(
    ("path", "fields", "prompts", "completions"),
    [(CHAT, {**FRANCE, "n": 3}, 1, 3), (COMPLETION, {"prompt": ["Once upon"] * 4}, 4, 4)],
)
def test_the_usage_and_the_charge_are_those_of_all_choices(
    gateway: Any, path: str, fields: dict[str, Any], prompts: int, completions: int
) -> None:
    key = new_key(gateway)
    own, joined = both(gateway, path, fields)

    # A choice may end early: several slots at once round differently from one.
    one, all_ = (answer["usage"]["completion_tokens"] for answer in (own, joined))
    assert one < all_ <= 8 * completions
    assert joined["usage"]["prompt_tokens"] == own["usage"]["prompt_tokens"] * prompts
    body = {"model": "talk", "max_tokens": 8, **fields}
    answer = httpx.post(
        gateway.url + path, json=body, headers=bearer(key), timeout=120, verify=False
    )
    used = answer.json()["usage"]
    charged = (1, used["prompt_tokens"], used["completion_tokens"])
    assert usage_of(gateway, key) == charged


def test_all_choices_of_a_remote_llamacpp_are_charged(gateway: Any, start: Any) -> None:
    source = engine_url(gateway, "/v1")
    model = {"engine": "remote", "kind": "chat", "source": source, "remote_model": "talk"}
    with start({"talk": model}, pool={"engine_hosts": ["127.0.0.1"]}) as remote:
        own, joined = both(remote, CHAT, {**FRANCE, "n": 3})

        one, all_ = (answer["usage"]["completion_tokens"] for answer in (own, joined))
        assert len(joined["choices"]) == 3
        assert one < all_ <= 24
        [line] = remote.client.get("/v1/usage").json()["data"]
        assert line["completion_tokens"] == all_


def test_an_error_of_the_engine_keeps_its_status(gateway: Any) -> None:
    long = gateway.chat("word " * 5000)

    assert long.status_code == 400
    assert long.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "x", "reasoning_content": 5}]}, None),
        ({**FRANCE, "reasoning_format": "x"}, None),
        ({**FRANCE, "top_k": "x"}, "top_k"),
    ],
)
def test_a_mistake_of_the_client_is_a_400_though_the_engine_answers_500(
    gateway: Any, fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    answer = gateway.client.post(CHAT, json={"model": "talk", **fields, "stream": stream})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert "retry-after" not in answer.headers
    assert gateway.pool.models["talk"].replica_slots[0].breaker.marks == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", ["n", "n_cmpl"])
def test_more_choices_than_slots_are_refused_by_name(
    gateway: Any, field: str, stream: bool
) -> None:
    body = {"model": "talk", **FRANCE, "max_tokens": 1, "stream": stream, field: 5}
    error = gateway.client.post(CHAT, json=body).json()["error"]

    assert (error["param"], error["type"]) == (field, "invalid_request_error")
    assert error["message"] == f"{field}: talk has 4 slots, one a choice"


def new_key(gateway: Any) -> dict[str, Any]:
    limits = {"tokens_per_month": 10**9}
    found: dict[str, Any] = gateway.client.post(
        "/pool/keys", json={"tenant": "acme", "limits": limits}
    ).json()
    return found


def bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {key['key']}"}


def usage_of(gateway: Any, key: dict[str, Any]) -> tuple[int, int, int]:
    lines = [u for u in gateway.client.get("/v1/usage").json()["data"] if u["key"] == key["id"]]
    names = "requests", "prompt_tokens", "completion_tokens"
    first, second, third = (sum(line[name] for line in lines) for name in names)
    return first, second, third


def hang_up(gateway: Any, key: dict[str, Any], path: str, **fields: Any) -> None:
    """Send a request that would take long, and leave when some of the answer is there."""
    body = orjson.dumps({"model": "talk", "max_tokens": 1500, "ignore_eos": True, **fields})
    head = [
        f"POST {path} HTTP/1.1",
        f"authorization: Bearer {key['key']}",
        f"content-length: {len(body)}",
    ]
    host, port = gateway.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall("\r\n".join([*head, "", ""]).encode() + body)
        gateway.until(lambda: has_text(gateway), 60)
        time.sleep(0.3)


def busy_slots(gateway: Any) -> list[dict[str, Any]]:
    slots = httpx.get(engine_url(gateway, "/slots"), timeout=20, verify=False).json()
    return [slot for slot in slots if slot["is_processing"]]


def has_text(gateway: Any) -> bool:
    """Whether every request at the engine has a token."""
    found = [slot["next_token"][0]["n_decoded"] > 0 for slot in busy_slots(gateway)]
    return bool(found) and all(found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "fields"),
    [(CHAT, FRANCE), (COMPLETION, {"prompt": ["Once upon", "In a"]}), ("/v1/responses", {})],
)
def test_the_engine_stops_and_what_it_made_is_charged(
    gateway: Any, path: str, fields: dict[str, Any], stream: bool
) -> None:
    key = new_key(gateway)
    if path == "/v1/responses":
        fields = {"input": "Tell me a story.", "max_output_tokens": 1500}

    hang_up(gateway, key, path, stream=stream, **fields)
    left_s = time.monotonic()
    gateway.until(lambda: not busy_slots(gateway))
    took_s = time.monotonic() - left_s
    gateway.until(lambda: usage_of(gateway, key)[0] == 1)
    gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 0)
    requests, prompt, completion = usage_of(gateway, key)

    print(f"stopped after {took_s:.2f} s; charged {prompt} + {completion}")
    assert took_s < WITHIN_S
    assert (requests, prompt > 0) == (1, True)
    assert 0 < completion < 1500
