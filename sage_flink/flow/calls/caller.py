"""The calls of one node over a model pool: from a record to its result or its failure.

How many records are in flight and in which order they leave is decided by the target. This module
decides the rest: budget, attempts, headers and batches, and that a failure is a value.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping

import msgspec

from sage_flink.common.errors import PoolTimeout, SageError
from sage_flink.common.records import FailedRecord, Record
from sage_flink.flow.call_requests import call_headers, request_body
from sage_flink.flow.calls.classification import Post, attempt
from sage_flink.flow.calls.embedding_batcher import EmbeddingBatcher
from sage_flink.flow.calls.merging import MergedCalls
from sage_flink.flow.calls.retry_policy import RetryPolicy, out_of_time
from sage_flink.flow.calls.tenant_buffers import ATTEMPT, DEADLINE, CallResult
from sage_flink.flow.graph import Call
from sage_flink.flow.merging.requests import MergeKey, merge_key
from sage_flink.flow.steps import call_answer, catch_failure


class Caller:
    """The calls of one node, over a pool's ``post``. Lives on one event loop.

    ``request`` replaces the spec's own; ``on_failure`` gets the error of each failed call.
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
        self.merged = MergedCalls(node.merging) if node.merging else None
        self._batcher = EmbeddingBatcher(node, post) if node.spec.mode == "embed" else None

    async def call(self, record: Record) -> Record | FailedRecord:
        """The record with its result, or the failed record with the attempts made.

        Takes at most ``timeout_s``, and ``attempts_max`` requests that reached the pool (more where
        a batch is bisected, see :mod:`~sage_flink.flow.calls.embedding_batcher`). A record with an
        empty body is returned unchanged; one past its deadline fails without a request.
        """
        node, request = self._node, self._request
        body = catch_failure(node.name, record, lambda: request_body(record, request), request)
        if isinstance(body, FailedRecord):
            return body
        if not body:
            return record
        headers = call_headers(self._job, node, record)
        key = catch_failure(node.name, record, lambda: self._merge_key(record, headers))
        if isinstance(key, FailedRecord):
            return key
        result = await self._result(headers, body, key)
        if result.error is not None:
            if self._on_failure is not None:
                self._on_failure(record, result.error)
            return FailedRecord(record, node.name, str(result.error), result.attempts)
        answer, body = node.spec.answer, result.body
        made = catch_failure(
            node.name, record, lambda: call_answer(node, answer, record, body), answer
        )
        if isinstance(made, FailedRecord):
            return msgspec.structs.replace(made, attempts=result.attempts)
        return made

    async def aclose(self) -> None:
        """Cancel the requests that are still in flight."""
        if self._batcher is not None:
            await self._batcher.aclose()

    def _merge_key(self, record: Record, headers: dict[str, str]) -> MergeKey | None:
        merging = self._node.merging
        return merge_key(merging, record, headers) if merging else None

    async def _result(
        self, headers: dict[str, str], body: bytes, key: MergeKey | None
    ) -> CallResult:
        node, now_ms = self._node, round(time.time() * 1000)
        deadline_ms = int(headers.setdefault(DEADLINE, str(now_ms + round(node.slack_s * 1000))))
        if deadline_ms <= now_ms:
            late = PoolTimeout(f"its deadline passed {now_ms - deadline_ms} ms before the call")
            return CallResult(b"", 0, late)
        if self._batcher is not None:
            return await self._batcher.embed(body, headers, node.timeout_s)
        end = asyncio.get_running_loop().time() + node.timeout_s
        if self.merged is not None and key is not None:
            return await self.merged.result(
                key, lambda: self._post_with_retries(body, headers, end)
            )
        return await self._post_with_retries(body, headers, end)

    async def _post_with_retries(
        self, body: bytes, headers: dict[str, str], end: float
    ) -> CallResult:
        node, error = self._node, None
        retry = RetryPolicy(node.retry.attempts_max, node.retry.attempts_max)
        try:
            async with asyncio.timeout_at(end):
                while True:
                    numbered = {**headers, ATTEMPT: str(retry.made + 1)}
                    tried = await attempt(self._post, node.spec.path, body, numbered)
                    retry, error = retry.after(tried), tried.error
                    pause_s = retry.pause_s(tried, random.random())  # noqa: S311
                    resumed = asyncio.get_running_loop().time() + pause_s
                    # Without time for another attempt this error is more specific than a timeout.
                    late = resumed >= end
                    if late or not retry.allows(tried.classification):
                        return CallResult(tried.body, retry.made, error)
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            return CallResult(b"", retry.made + 1, out_of_time(node.timeout_s, error))


def merged_counts(callers: Mapping[str, Caller]) -> dict[str, int]:
    """How many results are those of another request, by call that merges."""
    return {name: caller.merged.count for name, caller in callers.items() if caller.merged}
