"""A gateway with vector stores in memory, and a store with a file."""

from collections.abc import Iterator
from typing import Any

import pytest
from vector_store_client import gateway_with_stores, store_with_a_file


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with gateway_with_stores(start, fake, tmp_path_factory.mktemp("home")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def store_with_file(gateway: Any) -> str:
    return store_with_a_file(gateway)
