"""``sage db``: what it lists, finds, writes to files and reads back, on the stack's Milvus."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pandas
import pytest
from typer.testing import CliRunner

from sage_connectors.vector_files import read_batches, write_rows
from sage_flink import cli
from sage_flink.common import ConfigError, Rejected
from sage_flink.db import VectorRow, collection, field
from sage_flink.db.vectors import pack


def rows_of(count: int) -> list[VectorRow]:
    return [
        VectorRow(
            f"r{n:04}",
            pack([1.0, n / 7, 0.0]),
            {"text": f"row {n}", "year": 2000 + n, "doc": "a\nb", "tags": ["x", None, {"k": 1.5}]},
        )
        for n in range(count)
    ]


def sage(*words: str, answer: str = "") -> str:
    done = CliRunner().invoke(cli.app, ["db", *words], input=answer, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def name() -> Iterator[str]:
    made = collection(f"conformance_{uuid.uuid4().hex}", dim=3)
    store = made.open()
    store.upsert(rows_of(1_200))
    yield made.name
    store.drop()  # type: ignore[attr-defined]
    store.close()


@pytest.mark.service
def test_a_collection_is_listed_and_described(name: str) -> None:
    (listed,) = [one for one in json.loads(sage("ls", "--json")) if one["name"] == name]

    assert (listed["rows"], listed["dim"], listed["metric"]) == (1_200, 3, "cosine")
    assert json.loads(sage("describe", name, "--json")) == listed
    shown = sage("describe", name)
    for text in ("1200", "HNSW", "vector FLOAT_VECTOR", "cosine"):
        assert text in shown


@pytest.mark.service
def test_rows_that_match_are_counted_found_and_deleted(name: str) -> None:
    assert sage("count", name, "--where", "year >= 3000").strip() == "200"
    hits = json.loads(
        sage("search", name, "--near", "r0010", "--top", "2", "--where", "year > 2010", "--json")
    )
    assert [hit["id"] for hit in hits] == ["r0011", "r0012"]
    near = ("search", name, "--near", "r0010", "--where", "year > 2010", "--json")
    assert [hit["id"] for hit in json.loads(sage(*near, "--top", "1", "--offset", "1"))] == [
        "r0012"
    ]
    (of_document,) = json.loads(sage(*near, "--group-by", "document"))
    assert of_document["id"] == "r0011"
    shown = sage("search", name, "--near", "r0010", "--min-score", "0.999999")
    assert "row 10" not in shown

    assert "delete 200 rows" in sage("delete", name, "--where", "year >= 3000", answer="y\n")
    assert json.loads(sage("count", name, "--json"))["rows"] == 1_000


@pytest.mark.service
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_rows_come_back_from_a_file_as_they_were(name: str, tmp_path: Path, ending: str) -> None:
    file, copy = tmp_path / f"rows.{ending}", f"{name}_copy"

    assert "1200 rows in" in sage("export", name, str(file))
    assert "1200 rows stored" in sage("import", copy, str(file))

    store = collection(copy, dim=3).open(create=False)
    assert list(store.scan()) == rows_of(1_200)
    store.close()
    assert "1200 rows" in sage("drop", copy, answer="y\n")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.service
def test_rows_that_the_store_refuses_are_named_and_the_others_stored(tmp_path: Path) -> None:
    file, copy = tmp_path / "rows.jsonl", f"conformance_{uuid.uuid4().hex}"
    lines = [{"id": "good", "vector": [1, 2]}, {"id": "zeros", "vector": [0, 0]}]
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))

    done = CliRunner().invoke(cli.app, ["db", "import", copy, str(file)])

    assert done.exit_code == 1
    assert "refused: zeros: vector is all zeros" in done.output
    assert "1 rows stored" in done.output
    sage("drop", copy, "--yes")


@pytest.fixture
def other(name: str) -> Iterator[str]:
    """A second collection, with rows of other years."""
    made = collection(f"{name}_other", dim=3)
    store = made.open()
    store.upsert([replace(row, fields={"year": 1}) for row in rows_of(10)])
    yield made.name
    store.drop()  # type: ignore[attr-defined]
    store.close()


@pytest.mark.service
def test_an_alias_moves_while_it_is_searched_and_no_search_fails_or_mixes(
    name: str, other: str
) -> None:
    alias = f"{name}_alias"
    assert sage("alias", alias, name) == f"{alias} stands for {name}\n"
    reader = collection(alias, dim=3).open(create=False)
    found: list[set[bool]] = []
    ends = threading.Event()

    def search() -> None:
        while not ends.is_set():
            hits = reader.search([1.0, 0.5, 0.0], 10)
            found.append({hit.fields["year"] == 1 for hit in hits})

    with ThreadPoolExecutor(1) as threads:
        searches = threads.submit(search)
        for target, before in [(other, name), (name, other)] * 5:
            moved = sage("alias", alias, target)
            assert moved == f"{alias} stands for {target}, before for {before}\n"
            time.sleep(0.1)
        ends.set()
        searches.result(30)
    reader.close()

    assert len(found) > 10
    assert all(len(of_one) == 1 for of_one in found)
    assert {True} in found
    assert {False} in found
    assert json.loads(sage("describe", alias, "--json"))["aliases"] == [alias]
    for words in (("drop", alias, "--yes"), ("reindex", name, alias, "--model", "minilm")):
        assert isinstance(CliRunner().invoke(cli.app, ["db", *words]).exception, ConfigError)
    assert sage("count", name).strip() == "1200"
    assert sage("alias", alias, "--remove") == f"alias {alias} removed\n"
    gone = CliRunner().invoke(cli.app, ["db", "alias", alias, "--remove"])
    assert f"no alias {alias!r}" in str(gone.exception)


@pytest.mark.service
def test_a_collection_is_embedded_by_another_model_and_later_only_what_changed(
    other: str,
) -> None:
    first, new = collection(other, dim=3).open(), f"{other}_minilm"
    first.upsert([replace(row, fields={"text": f"about {row.id}"}) for row in rows_of(10)])
    words = ("reindex", other, new, "--model", "minilm")

    assert f"{new}: 10 rows embedded by minilm, 0 unchanged" in sage(*words)
    first.upsert([replace(rows_of(1)[0], fields={"text": "changed"})])
    first.delete_where(field("id") == "r0009")
    counts = json.loads(sage(*words, "--json"))

    assert (counts["embedded"], counts["unchanged"], counts["deleted"]) == (1, 8, 1)
    assert json.loads(sage("describe", new, "--json"))["dim"] == 384
    assert json.loads(sage("search", new, "--near", "r0000", "--json"))[0]["fields"]["text"]
    sage("drop", new, "--yes")
    first.close()


@pytest.mark.service
def test_a_collection_is_renamed_with_its_rows(name: str, other: str) -> None:
    new = f"{name}_new"

    assert sage("rename", other, new) == f"{other} is {new}\n"
    assert sage("count", new).strip() == "10"
    taken = CliRunner().invoke(cli.app, ["db", "rename", new, name])
    assert f"{name!r} is a collection" in str(taken.exception)
    assert sage("rename", new, other) == f"{new} is {other}\n"


@pytest.mark.service
def test_an_answer_no_deletes_nothing(name: str) -> None:
    done = CliRunner().invoke(cli.app, ["db", "drop", name], input="n\n")

    assert done.exit_code == 1
    assert sage("count", name).strip() == "1200"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("count", "c", "--where", "year = 1"), Rejected, "at character 1: invalid syntax"),
        (("search", "c"), ConfigError, "give a text, or --text and words, or --near"),
        (("search", "c", "sea", "--near", "r1"), ConfigError, "give a text, or --text"),
        (("search", "c", "sea", "--text", "sea"), ConfigError, "give a text, or --text"),
        (("search", "c", "--text", "sea", "--hybrid"), ConfigError, "--hybrid is for a text"),
        (("search", "c", "sea", "--hybrid", "--min-score", "0"), ConfigError, "is a cosine"),
        (("search", "c", "--text", "sea", "--min-score", "0"), ConfigError, "is a cosine"),
        (("search", "c", "sea", "--connection", "docs"), ConfigError, "leave out --connection"),
        (("search", "c", "sea", "--group-by", "year"), ConfigError, "--group-by must be document"),
        (("delete", "c", "--where", ""), ConfigError, "--where is empty"),
        (("alias", "c"), ConfigError, "give a collection, or --remove"),
        (("alias", "c", "d", "--remove"), ConfigError, "give a collection, or --remove"),
        (("import", "c", "no/file.jsonl"), ConfigError, "no/file.jsonl cannot be read"),
        (("import", "c", "rows.csv"), ConfigError, "must end with .parquet or .jsonl"),
    ],
)
def test_a_wrong_command_is_an_error_before_anything_is_asked(words, error, message: str) -> None:
    done = CliRunner().invoke(cli.app, ["db", *words])

    assert isinstance(done.exception, error)
    assert message in str(done.exception)


@pytest.mark.service
def test_an_unknown_collection_is_an_error_that_lists_the_known_ones(name: str) -> None:
    done = CliRunner().invoke(cli.app, ["db", "describe", "nope"])

    assert isinstance(done.exception, ConfigError)
    assert name in str(done.exception)


def test_a_file_that_pandas_wrote_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    vectors = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    pandas.DataFrame({"id": ["a", "b"], "vector": vectors, "year": [2024, 2025]}).to_parquet(file)

    assert list(read_batches(file)) == [
        [
            VectorRow("a", pack([1.0, 2.0]), {"year": 2024}),
            VectorRow("b", pack([3.0, 4.0]), {"year": 2025}),
        ]
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "row 2: it is no row"),
        (b"[1]", "row 2: it is no row"),
        (b'{"vector": [1]}', "row 2: id must be text, got None"),
        (b'{"id": 5, "vector": [1]}', "row 2: id must be text, got 5"),
        (b'{"id": "b"}', "row 2: vector must be a list of numbers"),
        (b'{"id": "b", "vector": ["x"]}', "row 2: vector must be a list of numbers"),
        (b'{"id": "b", "vector": [[1], [2, 3]]}', "row 2: vector must be a list of numbers"),
        (b'{"id": "b", "vector": [[1]]}', "row 2: vector must be a list of numbers"),
    ],
)
def test_a_file_with_a_wrong_row_is_an_error_that_names_it(
    tmp_path: Path, line: bytes, message: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"id": "a", "vector": [1.5]}\n\n' + line + b"\n")

    with pytest.raises(ConfigError, match=message):
        list(read_batches(file))


@pytest.mark.parametrize("fields", ["[1]", "5", "{"])
def test_a_column_fields_that_is_no_object_is_an_error(tmp_path: Path, fields: str) -> None:
    file = tmp_path / "rows.parquet"
    frame = pandas.DataFrame({"id": ["a"], "vector": [np.array([1.0])], "fields": [fields]})
    frame.to_parquet(file)

    with pytest.raises(ConfigError, match="row 1: it is no row"):
        list(read_batches(file))


def test_a_file_appears_when_all_rows_are_written(tmp_path: Path) -> None:
    def failing():
        yield from rows_of(3)
        raise ConfigError("the test: the store is away")

    file = tmp_path / "rows.parquet"
    file.write_bytes(b"old")
    with pytest.raises(ConfigError, match="the store is away"):
        write_rows(file, failing())

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(file.name, b"old")]
