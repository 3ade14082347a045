"""Calls of one node of which near-equal ones share an answer, on one event loop.

Java's ``MergingExecutor`` is the twin.
"""

import asyncio
from collections.abc import Awaitable, Callable

from sage_flink.flow.call_options import Merging
from sage_flink.flow.calls.tenant_buffers import CallResult
from sage_flink.flow.merging.answers import SharedAnswers
from sage_flink.flow.merging.requests import MergeKey


class MergedCalls:
    """Sends a request, or waits for the answer of one before it.

    A request whose leader fails is sent itself: what was wrong may be the leader's own, such as
    its length or its deadline.
    """

    def __init__(self, merging: Merging) -> None:
        limits = (merging.threshold, merging.within_s, merging.answers_max)
        self._answers = SharedAnswers[asyncio.Future[CallResult]](*limits)
        #: How many results are those of another request.
        self.count = 0

    async def result(self, key: MergeKey, send: Callable[[], Awaitable[CallResult]]) -> CallResult:
        """The result; with 0 attempts where it is that of another request."""
        loop = asyncio.get_running_loop()
        leader = self._answers.find(key, loop.time())
        if leader is not None:
            await asyncio.wait([leader])  # cancelled with this request, the leader continues
            if not leader.cancelled() and leader.result().error is None:
                self.count += 1
                return leader.result()._replace(attempts=0)
            return await send()
        own: asyncio.Future[CallResult] = loop.create_future()
        self._answers.add(key, own, loop.time())
        try:
            result = await send()
            if result.error is None:
                self._answers.keep(own, len(result.body))
                own.set_result(result)
            return result
        finally:
            if not own.done():
                self._answers.remove(own)
                own.cancel()
