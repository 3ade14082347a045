"""One call's bill: handed in before the end of the answer is told, whatever the answer is."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from sage_gateway.errors import GatewayError
from sage_gateway.idempotency.decisions import END, broken
from sage_gateway.openai.error_table import error_event
from sage_gateway.openai.schema import tokens
from sage_gateway.requests.response import Answer, Stream
from sage_gateway.tenants.cost import Used, used
from sage_gateway.tenants.limits import Cost

#: What is done with the bill. It is called once; None: nothing is to be paid.
Pay = Callable[[Used | None], Awaitable[None]]


async def whole(answer: Answer, body: bytes, cost: Cost, pay: Pay) -> Answer:
    """The answer, paid; an error costs nothing.

    Raises:
        GatewayError: it could not be paid.
    """
    found = None
    if answer.status == 200:
        found = used(answer.used, body=body, deltas=0, most=cost.most)
    await pay(found)
    return answer


def streamed(stream: Stream, body: bytes, cost: Cost, pay: Pay) -> Stream:
    """The same stream, paid before its last event.

    A caller who hangs up pays for the events so far, a token each; one whose engine broke off pays
    nothing. A stream that cannot be paid ends with an error.
    """
    events = 0
    said: dict[str, int] = {}
    paid = failed = False

    async def end() -> None:
        nonlocal paid
        if paid:
            return
        paid = True
        heard = bool(events) and not failed
        count = used(said, body=body, deltas=events, most=cost.most) if heard else None
        await pay(count)

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal events, said, failed
        async for chunk in stream.chunks:
            failed = failed or broken(chunk)
            last = chunk.endswith(END)
            events += chunk.count(b"\n\n") - last
            said = tokens(chunk) or said
            if last:
                try:
                    await end()
                except GatewayError as error:
                    yield error_event(error)
                    return
            yield chunk

    async def close() -> None:
        await counted.aclose()
        await stream.close()
        with contextlib.suppress(GatewayError):  # nobody listens
            await end()

    counted = chunks()
    return Stream(counted, close, stream.headers)
