"""Deadlines that share one timer: called once when due, never if dropped before."""

import asyncio

from sage_gateway.runtime.deadlines import Deadlines


async def test_a_due_deadline_is_called_once_and_a_dropped_one_never() -> None:
    loop, called = asyncio.get_running_loop(), []
    deadlines = Deadlines(loop, 0.01)
    for name, after_s in (("soon", 0.01), ("later", 0.1), ("dropped", 0.01)):
        deadlines.add(name, after_s, lambda name=name: called.append((name, loop.time())))
    began_s = loop.time()
    deadlines.drop("dropped")
    deadlines.drop("unknown")

    await asyncio.sleep(0.3)

    assert [name for name, _ in called] == ["soon", "later"]
    assert called[1][1] - began_s >= 0.1
    assert deadlines._timer is None, "no deadline is left, so no timer runs"


async def test_a_deadline_dropped_by_another_at_the_same_time_is_not_called() -> None:
    called: list[str] = []
    deadlines = Deadlines(asyncio.get_running_loop(), 0.01)

    def first() -> None:
        called.append("first")
        deadlines.drop("second")
        deadlines.add("third", 0.01, lambda: called.append("third"))

    deadlines.add("first", 0.01, first)
    deadlines.add("second", 0.01, lambda: called.append("second"))

    await asyncio.sleep(0.2)

    assert called == ["first", "third"]
