"""Vector stores without a gateway, as far as no file of them is indexed."""

from pathlib import Path

import pytest
from vector_store_service import make_store, stores_in

from sage_flink.common import StoreUnavailable
from sage_gateway.errors import GatewayError, NotFound
from sage_gateway.openai.error_table import status_of
from sage_gateway.storage.exclusive_database import ListPage
from sage_gateway.vector_stores.schema import VectorStoreChange
from sage_gateway.vector_stores.service import STORES_MAX

PAGE = ListPage(None, 10)


async def test_what_is_absent_from_a_change_stays_and_what_is_null_is_cleared(
    tmp_path: Path,
) -> None:
    async with stores_in(tmp_path) as stores:
        store = await make_store(stores, name="notes", metadata={"of": "test"})
        renamed = await stores.service.change("acme", store, VectorStoreChange(name="more"))
        cleared = await stores.service.change("acme", store, VectorStoreChange(metadata=None))

    assert (renamed.name, renamed.metadata) == ("more", {"of": "test"})
    assert (cleared.name, cleared.metadata) == ("more", {})


async def test_a_file_of_a_batch_is_no_file_of_a_store(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        file = await stores.upload("in.jsonl", b"{}", purpose="batch")
        store = await make_store(stores)
        with pytest.raises(GatewayError, match="has purpose 'batch'") as caught:
            await stores.attach(store, file)
        with pytest.raises(NotFound):
            await stores.attach(store, "file-absent")
        with pytest.raises(NotFound):
            await make_store(stores, file_ids=["file-absent"])
        listed = await stores.service.stores("acme", PAGE)

    assert status_of(caught.value) == 400
    assert [one.id for one in listed] == [store]


async def test_the_stores_of_a_tenant_are_bounded(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        for _ in range(STORES_MAX):
            await make_store(stores)
        with pytest.raises(GatewayError, match="delete some") as caught:
            await make_store(stores)

    assert status_of(caught.value) == 409


async def test_a_broken_database_closes_the_vector_stores_only(tmp_path: Path) -> None:
    (tmp_path / "vector_stores.sqlite").write_bytes(b"no database" * 1000)

    async with stores_in(tmp_path) as stores:
        file = await stores.upload("words.txt", b"text")
        for ask in (
            lambda: stores.service.stores("acme", PAGE),
            lambda: make_store(stores),
            lambda: stores.attach("vs_1", file),
        ):
            with pytest.raises(StoreUnavailable):
                await ask()


async def test_a_second_gateway_in_the_same_folder_has_no_vector_stores(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as first, stores_in(tmp_path) as second:
        store = await make_store(first)
        with pytest.raises(StoreUnavailable):
            await second.service.store("acme", store)
