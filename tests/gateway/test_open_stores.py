"""Stores that a thread keeps open."""

from searched_store import MemoryStore

from sage_gateway.vector_stores.open_stores import OpenStores


def test_a_thread_closes_the_store_that_it_has_not_used_longest() -> None:
    closed: list[str] = []

    class Closing(MemoryStore):
        def close(self) -> None:
            closed.append(self.name)

    stores = OpenStores(2)
    for name in ("a", "b", "a", "c"):
        if name not in stores:
            stores[name] = Closing({})
            stores[name].name = name
        assert stores[name].name == name
    stores.close()

    assert closed[0] == "b"
    assert sorted(closed) == ["a", "b", "c"]
