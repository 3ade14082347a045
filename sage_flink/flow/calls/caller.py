"""A Call node over a pool, in Python: a record in, the record with its answer or its failure out.

For the in-process target; the native operator (``connectors/native``)
keeps the same rules, and one conformance suite runs on both. How many records are in flight
and in which order they leave is the target's business; all else is decided here: the budget, the
attempts, the headers, the gathering, and that a failure is a value.
"""

import asyncio
import random
import time
from collections.abc import Callable

import msgspec

from sage_flink.common.errors import PoolTimeout, SageError
from sage_flink.common.records import Failed, Record
from sage_flink.flow.calls.classification import Post, attempt, out_of_time
from sage_flink.flow.calls.embedding_batcher import Gather
from sage_flink.flow.calls.retry_policy import Tries
from sage_flink.flow.calls.tenant_buffers import ATTEMPT, DEADLINE, Answer
from sage_flink.flow.graph import Call
from sage_flink.flow.steps import call_headers, guarded, question


class Caller:
    """The calls of one node, over a pool's ``post``. Lives on one event loop.

    ``request`` makes a record's body where not the node's spec does; ``on_failure`` is told the
    error of each call that failed.
    """

    def __init__(
        self,
        node: Call,
        post: Post,
        *,
        job: str,
        request: Callable[[Record], bytes] | None = None,
        on_failure: Callable[[Record, SageError], None] | None = None,
    ) -> None:
        self._node, self._post, self._job = node, post, job
        self._request = request or node.spec.request
        self._on_failure = on_failure
        self._gather = Gather(node, post) if node.spec.mode == "embed" else None

    async def answer(self, record: Record) -> Record | Failed:
        """The record with its answer, or its dead letter with the attempts made.

        At most ``timeout_s``, and ``attempts_max`` requests that were heard (more where a batch is
        bisected, see :mod:`~sage_flink.flow.calls.embedding_batcher`). A record with an empty body
        comes back untouched; one whose deadline is past fails without a call.
        """
        node = self._node
        body = guarded(node.name, record, lambda: question(record, self._request))
        if isinstance(body, Failed):
            return body
        if not body:
            return record
        answer = await self._answered(record, body)
        if answer.error is not None:
            if self._on_failure is not None:
                self._on_failure(record, answer.error)
            return Failed.of(record, node.name, str(answer.error), answer.attempts)
        made = guarded(node.name, record, lambda: node.spec.answer(record, answer.body))
        if isinstance(made, Failed):
            return msgspec.structs.replace(made, attempts=answer.attempts)
        return made

    async def aclose(self) -> None:
        """Abort what no record waits for any more."""
        if self._gather is not None:
            await self._gather.aclose()

    async def _answered(self, record: Record, body: bytes) -> Answer:
        node, now_ms = self._node, round(time.time() * 1000)
        headers = call_headers(self._job, node, record)
        slack_s = node.timeout_s if node.slack_s is None else node.slack_s
        deadline_ms = int(headers.setdefault(DEADLINE, str(now_ms + round(slack_s * 1000))))
        if deadline_ms <= now_ms:
            late = PoolTimeout(f"its deadline passed {now_ms - deadline_ms} ms before the call")
            return Answer(b"", 0, late)
        if self._gather is not None:
            return await self._gather.answer(body, headers, node.timeout_s)
        return await self._posted(body, headers)

    async def _posted(self, body: bytes, headers: dict[str, str]) -> Answer:
        node, error = self._node, None
        tries = Tries(node.attempts_max, node.attempts_max)
        try:
            async with asyncio.timeout(node.timeout_s) as budget:
                while True:
                    numbered = {**headers, ATTEMPT: str(tries.made + 1)}
                    tried = await attempt(self._post, node.spec.path, body, numbered)
                    tries, error = tries.after(tried), tried.error
                    pause_s = tries.pause_s(tried, random.random())  # noqa: S311
                    resumed = asyncio.get_running_loop().time() + pause_s
                    # With no time for another attempt, this one's answer says more than a timeout.
                    if not tries.more(tried.verdict) or resumed >= (budget.when() or 0):
                        return Answer(tried.body, tries.made, error)
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            made = tries.made + 1
            return Answer(b"", made, out_of_time(node.timeout_s, error))
