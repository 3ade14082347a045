"""Feeds the messages of a drill at their rate, with a fault at a random moment of them."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmark_sage.recovery.cluster import until
from benchmark_sage.recovery.workload import FIRST_MS
from sage_connectors.kafka_client import feed

FIRST_OUTCOME_S = 120.0
#: Key and value.
Message = tuple[str, bytes]


class Feeder:
    """Feeds ``messages`` into ``topic``; the keys of those that are sent are added to ``fed``.

    ``finished``: how many messages have their outcome. The second message waits for that of the
    first one: a job that has just been started can take seconds for it, and a fault before that
    would find nothing in flight. Not so with ``starts_warm`` false.
    """

    def __init__(
        self,
        topic: str,
        messages: Sequence[Message],
        rate_per_s: float,
        *,
        fed: list[str],
        finished: Callable[[], int],
        starts_warm: bool = True,
    ) -> None:
        self._topic = topic
        self._messages = messages
        self._rate_per_s = rate_per_s
        self._fed = fed
        self._finished = finished
        self._starts_warm = starts_warm

    def run(self, fault: Callable[[], None], chance: random.Random) -> tuple[float, int]:
        """Feed on a thread and run the fault after a random share of the messages.

        Returns when the fault began, and how many messages were fed by then.

        Raises:
            TimeoutError: the stream does not flow, or does not end.
        """
        count = len(self._messages)
        at = int(count * chance.uniform(0.3, 0.6))
        limit_s = FIRST_OUTCOME_S + 60 + 2 * count / self._rate_per_s
        thread = threading.Thread(target=self._feed, daemon=True)
        thread.start()
        until(lambda: len(self._fed) >= at, limit_s, "the stream flows")
        began, fed_before = time.monotonic(), len(self._fed)
        fault()
        thread.join(600 + limit_s)
        if thread.is_alive() or len(self._fed) < count:
            raise TimeoutError("the feeder could not send all of its events")
        return began, fed_before

    def _feed(self) -> None:
        feed(self._topic, self._at_rate())

    def _at_rate(self) -> Iterator[Any]:
        began = time.monotonic()
        for number, (id_, value) in enumerate(self._messages):
            if number == 1 and self._starts_warm:
                until(lambda: self._finished() > 0, FIRST_OUTCOME_S, "the first outcome")
                began = time.monotonic()
            time.sleep(max(0.0, began + number / self._rate_per_s - time.monotonic()))
            self._fed.append(id_)
            yield id_.encode(), value, None, FIRST_MS + number
