"""Repeats a request of background work until its answer is final."""

import asyncio
from collections.abc import Awaitable, Callable

from sage_gateway.batches.request_lines import is_not_admitted, retry_wait_s
from sage_gateway.requests.response import Response


async def final_answer(send: Callable[[], Awaitable[Response]]) -> Response:
    """The final answer of ``send``, which may be an error; retries for as long as it takes."""
    failures = 0
    while True:
        answer = await send()
        failures += not is_not_admitted(answer)
        wait_s = retry_wait_s(answer, failures)
        if wait_s is None:
            return answer
        await asyncio.sleep(wait_s)
