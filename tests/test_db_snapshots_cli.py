"""``sage db`` and the gateway's search on a collection with snapshots, on the stack's Milvus."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from snapshot_histories import FIRST_MS, STEP_MS, WriteHistory, document
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError, Rejected
from sage_flink.db import collection
from sage_flink.db.snapshots import markers_since
from sage_gateway.vector_stores.search import open_collection

pytestmark = pytest.mark.service
DIM = 8
QUERY = [1.0, 0.0, *[0.5] * (DIM - 2)]


def sage(*words: str) -> str:
    done = CliRunner().invoke(cli.app, ["db", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def history() -> Iterator[WriteHistory]:
    """Two versions of a document are committed, and a third one is not."""
    spec = collection(f"conformance_{uuid.uuid4().hex}", dim=DIM, snapshots=True)
    stream = [record for n in (1, 2, 3) for record in document("a", f"v{n}", n, DIM)]
    made = WriteHistory(spec, stream)
    made.start()
    for count in (2, 3):
        made.write(count)
        made.take_checkpoint()
    made.write(4)
    yield made
    assert made.writer is not None
    made.writer.close()
    spec.open().drop()  # type: ignore[attr-defined]


def test_commands_show_the_newest_snapshot_or_that_of_a_time(history: WriteHistory) -> None:
    name = history.spec.name
    first = datetime.fromtimestamp((FIRST_MS + STEP_MS) / 1000, UTC).isoformat()

    assert sage("count", name).strip() == "2"
    assert sage("count", name, "--as-of", first).strip() == "1"
    assert sage("count", name, "--as-of", str(FIRST_MS + 2 * STEP_MS)).strip() == "2"
    near = json.loads(sage("search", name, "--near", "a/0", "--as-of", first, "--json"))
    assert near == []
    [_, one, two] = json.loads(sage("snapshots", name, "--json"))
    assert [one["watermark_ms"], two["watermark_ms"]] == [
        FIRST_MS + STEP_MS,
        FIRST_MS + 2 * STEP_MS,
    ]
    assert "0 rows of" in sage("vacuum", name, "--keep-s", "3600")
    with pytest.raises(Rejected, match="before the oldest snapshot"):
        sage("count", name, "--as-of", "2001-01-01")
    with pytest.raises(ConfigError, match="--as-of: must be"):
        sage("count", name, "--as-of", "yesterday")


def test_a_collection_is_described_by_the_rows_that_a_reader_sees(history: WriteHistory) -> None:
    name = history.spec.name
    assert history.writer is not None
    stored = history.writer.rows.store

    described = json.loads(sage("describe", name, "--json"))
    (listed,) = [one for one in json.loads(sage("ls", "--json")) if one["name"] == name]

    # Versions 1 and 2 are committed with 1 and 2 rows, and the 3 rows of version 3 are not.
    markers = stored.count(where=markers_since(0))
    assert (described["rows"], described["other_versions"]) == (2, 4)
    assert stored.count() == 2 + 4 + markers
    assert listed == described
    assert "other_versions" in sage("describe", name)
    history.take_checkpoint()
    after = json.loads(sage("describe", name, "--json"))
    assert (after["rows"], after["other_versions"]) == (3, 3)


def test_the_gateway_finds_the_rows_of_the_newest_snapshot(history: WriteHistory) -> None:
    store = open_collection(history.spec.name, DIM)

    before = [(hit.id, hit.fields["version"]) for hit in store.search(QUERY, 9)]
    history.take_checkpoint()
    after = collection(history.spec.name, dim=DIM).open(create=False)

    assert sorted(before) == [("a/0", "v2"), ("a/1", "v2")]
    found = [(hit.id, hit.fields["version"]) for hit in after.search(QUERY, 9)]
    assert sorted(found) == [("a/0", "v3"), ("a/1", "v3"), ("a/2", "v3")]
    store.close()
    after.close()
