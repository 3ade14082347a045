"""``/v1/vector_stores/{name}/search`` over a store in memory."""

from typing import Any

import pytest
from searched_store import AT, MemoryStore

from sage_flink.common import ConfigError, NotFound
from sage_gateway.config.pool_spec import PoolSpec


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore({})


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any, store: MemoryStore) -> Any:
    def open_store(name: str, dim: int) -> MemoryStore:
        if name == "unfit":
            raise ConfigError(f"collection 'unfit' {AT}: its index compares by L2, got COSINE")
        if name not in {"docs", "acmes"} or dim != 4:
            raise NotFound(f"no collection {name!r} {AT}")
        return store

    models = {"vectors": fake("embedding")}
    pool = {"embedding_model": "vectors", "collections": {"acmes": {"tenants": ["acme"]}}}
    with start(models, open_store=open_store, pool=pool) as gateway:
        yield gateway


def search(gateway: Any, name: str = "docs", **body: Any) -> Any:
    return gateway.client.post(f"/v1/vector_stores/{name}/search", json=body)


@pytest.fixture
def rows_of_two(gateway: Any, store: MemoryStore) -> None:
    ask = {"model": "vectors", "input": ["sea", "hill"]}
    found = gateway.client.post("/v1/embeddings", json=ask).json()["data"]
    store.rows = {
        f"{text}/0": (item["embedding"], {"text": f"about {text}", "doc": text, "page": 3})
        for text, item in zip(ask["input"], found, strict=True)
    }


def test_the_nearest_rows_are_first_in_openais_schema(
    gateway: Any, store: MemoryStore, rows_of_two: None
) -> None:
    page = search(gateway, query="hill", max_num_results=1).json()

    assert page["object"] == "vector_store.search_results.page"
    assert (page["search_query"], page["has_more"], page["next_page"]) == ("hill", False, None)
    assert page["data"] == [
        {
            "file_id": "hill",
            "filename": "hill",
            "score": pytest.approx(1.0),
            "attributes": {"chunk_id": "hill/0", "doc": "hill", "page": 3},
            "content": [{"type": "text", "text": "about hill"}],
        }
    ]
    assert store.searches == [1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": 5},
        {"query": "x", "max_num_results": 0},
        {"query": "x", "max_num_results": 51},
        {"query": "x", "where": "1=1"},
        {"query": "x", "ranking_options": {"ranker": "best"}},
        {"query": "x", "ranking_options": {"score_threshold": 2}},
        {"query": "x", "offset": -1},
        {"query": "x", "offset": 1001},
        {"query": "x", "group_by": "year"},
    ],
)
def test_an_invalid_search_is_a_400(gateway: Any, body: dict[str, Any]) -> None:
    answer = search(gateway, **body)

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["nope", "no-name", "a'; drop", "..", "%00"])
def test_an_unknown_collection_is_a_404(gateway: Any, name: str) -> None:
    answer = search(gateway, name, query="x")

    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


def test_an_unavailable_store_is_a_503_and_is_opened_again(
    gateway: Any, store: MemoryStore
) -> None:
    store.broken = True
    away = search(gateway, query="x")
    store.broken = False

    assert away.status_code == 503
    assert int(away.headers["retry-after"]) >= 1
    assert search(gateway, query="x").status_code == 200


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"type": "eq", "key": "page", "value": 3}, {"sea", "hill"}),
        ({"type": "ne", "key": "doc", "value": "sea"}, {"hill"}),
        ({"type": "gte", "key": "page", "value": 4}, set()),
        ({"type": "in", "key": "doc", "value": ["sea", "moor"]}, {"sea"}),
        ({"type": "nin", "key": "doc", "value": ["sea"]}, {"hill"}),
        (
            {
                "type": "or",
                "filters": [
                    {"type": "eq", "key": "doc", "value": "sea"},
                    {
                        "type": "and",
                        "filters": [
                            {"type": "gt", "key": "page", "value": 2.5},
                            {"type": "lt", "key": "page", "value": 3},
                        ],
                    },
                ],
            },
            {"sea"},
        ),
        ('page == 3 and doc.like("h%")', {"hill"}),
        (None, {"sea", "hill"}),
    ],
)
def test_filters_leave_out_rows(
    gateway: Any, rows_of_two: None, filters: Any, found: set[str]
) -> None:
    answer = search(gateway, query="hill", filters=filters)

    assert {item["file_id"] for item in answer.json()["data"]} == found


@pytest.mark.parametrize("ranker", ["auto", "hybrid"])
def test_a_search_by_document_has_the_best_chunk_of_each_in_pages(
    gateway: Any, store: MemoryStore, rows_of_two: None, ranker: str
) -> None:
    vector, fields = store.rows["hill/0"]
    store.rows["hill/1"] = ([x * 0.9 for x in vector], fields)
    body = {"query": "hill", "ranking_options": {"ranker": ranker}}

    chunks = search(gateway, **body).json()["data"]
    documents = search(gateway, group_by="document", **body).json()["data"]
    second = search(gateway, group_by="document", offset=1, **body).json()["data"]

    assert [item["file_id"] for item in chunks].count("hill") == 2
    assert [item["attributes"]["chunk_id"] for item in documents] == ["hill/0", "sea/0"]
    assert second == documents[1:]


HYBRID = {"ranking_options": {"ranker": "hybrid"}}


def test_a_hybrid_search_ranks_by_the_words_of_the_query_too(
    gateway: Any, rows_of_two: None
) -> None:
    by_vector = search(gateway, query="about sea").json()["data"]
    both = search(gateway, query="about sea", max_num_results=1, **HYBRID).json()["data"]
    filtered = search(gateway, query="about", filters='doc == "hill"', **HYBRID).json()["data"]

    assert len(by_vector) == 2
    assert [item["file_id"] for item in both] == ["sea"]
    assert [item["file_id"] for item in filtered] == ["hill"]


def test_a_hybrid_search_of_a_collection_without_full_text_is_a_400(
    gateway: Any, store: MemoryStore
) -> None:
    store.full_text = False
    answer = search(gateway, query="x", **HYBRID)
    store.full_text = True

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_collection")
    assert "has no full text" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": " ", **HYBRID}, "text must not be empty"),
        (
            {"query": "x", "ranking_options": {"ranker": "hybrid", "score_threshold": 0.5}},
            "score_threshold is a cosine similarity",
        ),
    ],
)
def test_an_invalid_hybrid_search_is_a_400(
    gateway: Any, body: dict[str, Any], message: str
) -> None:
    answer = search(gateway, **body)

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({}, "filters.type must be one of eq, ne"),
        ({"type": "like", "key": "doc", "value": "x"}, "filters.type must be one of"),
        ({"type": "eq", "key": "doc"}, "filters: 'value' is missing"),
        ({"type": "eq", "key": "doc", "value": "x", "or": 1}, "filters: 'or' is not known here"),
        ({"type": "eq", "key": "doc", "value": ["x"]}, "filters.value: in and nin take a list"),
        ({"type": "in", "key": "doc", "value": "x"}, "filters.value: in and nin take a list"),
        ({"type": "eq", "key": "doc", "value": None}, "got null"),
        ({"type": "gt", "key": "doc", "value": True}, "true and false have no order"),
        ({"type": "eq", "key": "", "value": 1}, "a field's name must be text"),
        ({"type": "eq", "key": "vector", "value": 1}, "'vector' is searched for"),
        ({"type": "and", "filters": []}, "filters.filters must be a list"),
        ({"type": "and", "filters": [{"type": "or"}]}, "filters.filters[0]: 'filters' is missing"),
        ("page == 1 or " * 2_000 + "page == 1", "at most 20000 characters"),
        ("page = 3", "at character 1: invalid syntax"),
        ("__import__('os')", "at character 1: a condition is needed here"),
    ],
)
def test_a_filter_that_cannot_be_read_is_a_400_that_names_the_place(
    gateway: Any, filters: Any, message: str
) -> None:
    error = search(gateway, query="x", filters=filters)

    assert error.status_code == 400
    assert error.json()["error"]["param"] == "filters"
    assert message in error.json()["error"]["message"]


def test_rows_below_the_score_are_left_out(gateway: Any, rows_of_two: None) -> None:
    answer = search(gateway, query="hill", ranking_options={"score_threshold": 0.999})

    assert [item["file_id"] for item in answer.json()["data"]] == ["hill"]


def key_of(gateway: Any, tenant: str) -> dict[str, str]:
    wanted = {"tenant": tenant, "scopes": ["infer"]}
    made = gateway.client.post("/pool/keys", json=wanted).json()
    return {"Authorization": f"Bearer {made['key']}"}


def test_a_tenants_collection_does_not_exist_for_other_tenants(
    gateway: Any, rows_of_two: None
) -> None:
    def ask(name: str, headers: dict[str, str]) -> Any:
        path = f"/v1/vector_stores/{name}/search"
        return gateway.client.post(path, json={"query": "hill"}, headers=headers)

    acme, other = key_of(gateway, "acme"), key_of(gateway, "other")
    tricks = ["acmes", "Acmes", "acmes%00", "%61cmes", "acmes%20", "docs/../acmes", "acmes%2f"]
    spoofed = {**other, "x-sage-tenant": "acme"}

    assert [ask("acmes", headers).status_code for headers in (acme, {})] == [200, 200]
    assert [ask("docs", headers).status_code for headers in (acme, other)] == [200, 200]
    for name in tricks:
        for headers in (other, spoofed):
            assert ask(name, headers).status_code == 404
    hidden, absent = (ask(name, other).json()["error"] for name in ("acmes", "none"))
    assert hidden["message"].replace("acmes", "none") == absent["message"]


def test_unlisted_collections_may_be_hidden_from_tenants() -> None:
    spec = PoolSpec.model_validate(
        {
            "models": {"m": {"engine": "fake", "kind": "embedding", "dim": 4}},
            "collections": {"listed": {}, "acmes": {"tenants": ["acme"]}},
            "shared_collections": False,
        }
    )
    found = {
        tenant: [name for name in ("listed", "acmes", "other") if spec.finds(tenant, name)]
        for tenant in ("local", "acme", "zeta")
    }

    assert found == {
        "local": ["listed", "acmes", "other"],
        "acme": ["listed", "acmes"],
        "zeta": ["listed"],
    }


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("nope", 404, "not_found"), ("unfit", 400, "wrong_collection")],
)
def test_an_error_of_a_collection_does_not_show_where_the_store_is(
    gateway: Any, name: str, status: int, code: str
) -> None:
    answer = search(gateway, name, query="x")

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "127.0.0.1" not in answer.text
    assert "retry-after" not in answer.headers
