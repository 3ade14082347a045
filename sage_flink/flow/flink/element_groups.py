"""Elements that cross between JVM and Python worker together; Java's twin is ``ElementGroup``."""

from collections.abc import Iterator

import msgspec

#: The first byte of a group of elements, with which no MessagePack begins; then an array of bins.
GROUP = 0xC1
GROUP_BYTES_MAX = 256 << 10
_ELEMENTS = msgspec.msgpack.Decoder(list[bytes])


def elements_of(group: bytes) -> list[bytes]:
    """The elements of a group, in order."""
    return _ELEMENTS.decode(memoryview(group)[1:])


class OutputGroup:
    """The outputs that leave in one element; it ends earlier when they are large."""

    def __init__(self) -> None:
        self.outputs: list[bytes] = []
        self.size = 0

    def add(self, output: bytes) -> Iterator[bytes]:
        """Add an output; the group, if that ends it."""
        self.outputs.append(output)
        self.size += len(output)
        return self.end() if self.size >= GROUP_BYTES_MAX else iter(())

    def end(self) -> Iterator[bytes]:
        """The group, if it has outputs."""
        if self.outputs:
            yield bytes((GROUP,)) + msgspec.msgpack.encode(self.outputs)
        self.outputs, self.size = [], 0


def encode_delta(delta: dict[str, int]) -> Iterator[bytes]:
    """The counter delta, if it changes a counter."""
    if changes := {name: count for name, count in delta.items() if count}:
        yield msgspec.msgpack.encode(changes)
