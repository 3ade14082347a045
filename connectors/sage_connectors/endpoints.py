"""Round robin over several endpoints that skips failing ones for a back-off.

The back-off of an endpoint grows with its failures in a row, so that retries try other endpoints
first. When all are in back-off, the one that ends first is next: a single endpoint is always next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sage_flink.flow.calls.retry_policy import backoff_s


@dataclass(slots=True)
class _Endpoint:
    url: str
    failures: int = 0
    backoff_until: float = 0.0


class Endpoints:
    """Endpoints by URL, at least one. Times are seconds of one clock, the caller's.

    >>> pool = Endpoints(["http://a", "http://b"])
    >>> pool.record_failure("http://a", now=7.0)
    >>> [pool.next(now=7.05), pool.next(now=7.05), pool.next(now=8.0)]
    ['http://b', 'http://b', 'http://a']
    """

    def __init__(self, urls: Sequence[str], *, first: int = 0) -> None:
        self._endpoints = [_Endpoint(url) for url in urls]
        self._turn = first

    def next(self, now: float) -> str:
        """The endpoint for a request at ``now``."""
        count = len(self._endpoints)
        in_turn = [self._endpoints[(self._turn + n) % count] for n in range(count)]
        # min takes the first of equals: the next in turn among those that are not in back-off.
        chosen = min(in_turn, key=lambda endpoint: max(endpoint.backoff_until, now))
        self._turn = self._endpoints.index(chosen) + 1
        return chosen.url

    def record_success(self, url: str) -> None:
        """Reset the endpoint's failures."""
        endpoint = self._of(url)
        endpoint.failures, endpoint.backoff_until = 0, 0.0

    def record_failure(self, url: str, now: float, retry_after_s: float = 0.0) -> None:
        """Put the endpoint into back-off, longer with each failure in a row."""
        endpoint = self._of(url)
        endpoint.failures += 1
        endpoint.backoff_until = now + backoff_s(endpoint.failures, retry_after_s, 1.0)

    def _of(self, url: str) -> _Endpoint:
        return next(endpoint for endpoint in self._endpoints if endpoint.url == url)
