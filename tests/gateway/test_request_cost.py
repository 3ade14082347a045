"""What a generation may cost and is expected to cost, from the fields of its request."""

import sys
from typing import Any

import orjson
import pytest

from sage_gateway.errors import InvalidRequest
from sage_gateway.inference.model_inference import expected_cost
from sage_gateway.openai.decoding import decode
from sage_gateway.openai.request_size import prompts
from sage_gateway.openai.schema import ChatRequest, CompletionRequest, RerankRequest
from sage_gateway.tenants.cost import TEMPLATE_TOKENS, generation, rerank
from sage_gateway.tenants.limits import Cost

CONTEXT = 2048


def completion(prompt: Any, **fields: Any) -> tuple[CompletionRequest, bytes]:
    body = orjson.dumps({"model": "m", "prompt": prompt, **fields})
    return decode(body, CompletionRequest), body


def chat(**fields: Any) -> tuple[ChatRequest, bytes]:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})
    return decode(body, ChatRequest), body


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a", 1),
        ("[1, 2]", 1),
        ([], 1),
        ([1, 2], 1),
        (["a"], 1),
        ([[1, 2]], 1),
        (["a", "b"], 2),
        ([[1], [2]], 2),
        (["a", [2], "["], 3),
        (["a", 2, 3], 1),
        ([-1, "a"], 1),
        (["a", [2], 3], 3),
        ([{"prompt_string": "a"}, {"prompt_string": "b"}], 2),
        ({"prompt_string": "a"}, 1),
    ],
)
def test_a_list_of_texts_or_of_token_lists_is_many_prompts(prompt: Any, count: int) -> None:
    request, _ = completion(prompt)

    assert prompts(request) == count


def test_prompts_are_counted_whatever_space_is_around_them() -> None:
    body = b'{"model": "m", "prompt" : \n [ "a" ,\t"b" ] }'

    assert prompts(decode(body, CompletionRequest)) == 2


def test_each_prompt_of_a_list_may_cost_its_completions() -> None:
    request, body = completion(["hi"] * 100, max_tokens=500)

    cost = generation(request, body, CONTEXT)

    assert cost == Cost(len(body) // 4 + 1 + 50_000, len(body) + TEMPLATE_TOKENS + 50_000)


def test_prompts_and_completions_multiply_and_each_fits_the_context() -> None:
    request, body = completion(["x" * 9000, "y" * 9000], max_tokens=-1, n=3)

    assert generation(request, body, CONTEXT).most == 2 * 3 * CONTEXT


def test_the_prompts_are_at_most_a_context_each() -> None:
    request, body = completion(["x" * 90_000, "y"], max_tokens=5)

    assert generation(request, body, CONTEXT).most == 2 * CONTEXT


@pytest.mark.parametrize(
    ("fields", "completions"),
    [({"n_cmpl": 4}, 4), ({"n": 2, "n_cmpl": 3}, 3), ({"n_cmpl": None}, 1)],
)
def test_llama_cpps_name_of_n_counts(fields: dict[str, Any], completions: int) -> None:
    request, body = chat(max_tokens=10, **fields)

    assert generation(request, body, CONTEXT).most == (
        len(body) + TEMPLATE_TOKENS + 10 * completions
    )


def test_a_prompt_that_is_nested_too_deeply_to_count_is_refused() -> None:
    body = b'{"model": "m", "prompt": [' + b"[" * 500 + b"]" * 500 + b"]}"
    request, usual = decode(body, CompletionRequest), sys.getrecursionlimit()

    sys.setrecursionlimit(400)  # as if the call came from further down than the one of decode
    try:
        with pytest.raises(InvalidRequest, match="nested too deeply"):
            prompts(request)
    finally:
        sys.setrecursionlimit(usual)


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({}, 256),
        ({"max_tokens": 0}, 256),
        ({"max_tokens": 100}, 100),
        ({"max_tokens": 9000}, CONTEXT),
        ({"max_tokens": -1}, CONTEXT),
        ({"max_tokens": 1, "n_predict": -1}, CONTEXT),
        ({"n_predict": 2000, "max_tokens": 1}, 2000),
        ({"max_completion_tokens": 30, "max_tokens": 40}, 40),
        ({"max_tokens": 100, "n": 128}, 12_800),
        ({"max_tokens": 100, "best_of": 3, "n": 2}, 300),
        ({"n": 2}, 512),
    ],
)
def test_the_expected_cost_is_the_prompt_and_the_largest_limit_of_each_completion(
    fields: dict[str, int], answers: int
) -> None:
    request, body = chat(**fields)

    assert expected_cost(request, len(body), CONTEXT) == len(body) // 4 + answers


def test_the_expected_cost_counts_every_prompt() -> None:
    request, body = completion(["a", "b", "c"], max_tokens=50, n=2)

    assert expected_cost(request, len(body), CONTEXT) == len(body) // 4 + 300


def test_the_query_of_a_rerank_counts_once_for_each_document() -> None:
    query = "q" * 1000
    body = orjson.dumps({"model": "m", "query": query, "documents": ["a"] * 100})

    cost = rerank(decode(body, RerankRequest), body)

    assert cost.most == len(body) + 99 * len(query) + TEMPLATE_TOKENS
    assert 25_000 < cost.likely <= cost.most
