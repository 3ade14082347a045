"""Which of several endpoints is asked next.

In turn; one that failed stands aside for a back-off that grows with its failures, so that retries
go elsewhere first. Where all stand aside, the one whose time ends first is asked: a pool of one is
asked always.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sage_flink.flow.calls.classification import backoff_s


@dataclass(slots=True)
class _Endpoint:
    url: str
    failures: int = 0
    aside_until: float = 0.0


class Endpoints:
    """Endpoints by URL, at least one. Times are seconds of one clock, the caller's.

    >>> pool = Endpoints(["http://a", "http://b"])
    >>> pool.failed("http://a", now=7.0)
    >>> [pool.next(now=7.05), pool.next(now=7.05), pool.next(now=8.0)]
    ['http://b', 'http://b', 'http://a']
    """

    def __init__(self, urls: Sequence[str], *, first: int = 0) -> None:
        self._endpoints = [_Endpoint(url) for url in urls]
        self._turn = first

    def next(self, now: float) -> str:
        """The endpoint to ask at ``now``."""
        count = len(self._endpoints)
        in_turn = [self._endpoints[(self._turn + n) % count] for n in range(count)]
        # min takes the first of equals: the next in turn among those that do not stand aside.
        chosen = min(in_turn, key=lambda endpoint: max(endpoint.aside_until, now))
        self._turn = self._endpoints.index(chosen) + 1
        return chosen.url

    def answered(self, url: str) -> None:
        """It works: its failures are forgotten."""
        endpoint = self._of(url)
        endpoint.failures, endpoint.aside_until = 0, 0.0

    def failed(self, url: str, now: float, retry_after_s: float = 0.0) -> None:
        """It does not: it stands aside, for the longer the more often it failed in a row."""
        endpoint = self._of(url)
        endpoint.failures += 1
        endpoint.aside_until = now + backoff_s(endpoint.failures, retry_after_s, 1.0)

    def _of(self, url: str) -> _Endpoint:
        return next(endpoint for endpoint in self._endpoints if endpoint.url == url)
