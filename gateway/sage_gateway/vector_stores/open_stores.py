"""Collections that a thread has open."""

from typing import Protocol, TypeVar

from cachetools import LRUCache
from typing_extensions import override


class Closeable(Protocol):
    """An opened collection."""

    def close(self) -> None:
        """Close the connection."""
        ...


S = TypeVar("S", bound=Closeable)


class OpenStores(LRUCache[str, S]):
    """The stores that one thread has open, by name; the least recently used is closed for more."""

    def close(self) -> None:
        """Close all stores."""
        while self:
            self.popitem()

    def discard(self, name: str) -> None:
        """Close a store, if it is open."""
        if (store := self.pop(name, None)) is not None:
            store.close()

    @override
    def popitem(self) -> tuple[str, S]:
        name, store = super().popitem()
        store.close()
        return name, store
