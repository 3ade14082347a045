"""Deadlines without a timer each: called once when due, not at all when dropped before."""

import asyncio

from sage_gateway.runtime.deadlines import Deadlines


async def test_what_is_due_is_called_once_and_what_was_dropped_never() -> None:
    loop, called = asyncio.get_running_loop(), []
    deadlines = Deadlines(loop, 0.01)
    for name, after_s in (("soon", 0.01), ("later", 0.1), ("dropped", 0.01)):
        deadlines.add(name, after_s, lambda name=name: called.append((name, loop.time())))
    began_s = loop.time()
    deadlines.drop("dropped")
    deadlines.drop("nobody")

    await asyncio.sleep(0.3)

    assert [name for name, _ in called] == ["soon", "later"]
    assert called[1][1] - began_s >= 0.1
    assert deadlines._timer is None, "nothing to look after, so nothing looks"


async def test_one_that_drops_another_as_it_falls_due_keeps_it_from_being_called() -> None:
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
