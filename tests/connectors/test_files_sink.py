"""Files as a sink: whole files with each record once, read back by DuckDB and pandas."""

import asyncio
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pandas
import pytest
from minicluster import QUIET, FileSink, Slowly
from waiting import wait_until

import sage_connectors
import sage_flink as sage
from sage_connectors import files_sink, generator
from sage_flink.common import ConfigError, PipelineError, Record, StoreUnavailable
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import BatchLimits, FlinkOptions, Refusal
from sage_flink.flow.lists import ListSource
from sage_flink.flow.yaml_form import from_yaml, to_yaml, vocabulary

pytestmark = QUIET
FLAWED = (
    Record("nan", {"v": float("nan")}, 7),
    Record("tuple as key", {(1, 2): "x"}, 7),
)
REASONS = [("nan", "nan is no JSON"), ("tuple as key", "JSON cannot hold the value")]


def rows(count: int) -> tuple[Record, ...]:
    return tuple(
        Record(
            f"r{n}", {"n": n, "text": "zwölf\n", "raw": b"\x00\xff"}, 1_000 + n, b"k%d" % (n % 3)
        )
        for n in range(count)
    )


def written(records: Sequence[Record], folder: Path, form: Any) -> list[tuple[str, str]]:
    """Write the records in process; the ids and reasons of the dead letters."""
    graph = sage.flow.read("in", ListSource(tuple(records))).write(
        "out", files_sink(folder, format=form)
    )
    outcome = asyncio.run(sage.flow.run(graph))
    return [(failed.id, failed.reason) for failed in outcome.failed]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def json_rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_duckdb_reads_the_rows_of_a_run_and_what_is_not_json_is_a_dead_letter(form, tmp_path):
    failed = written((*rows(20), *FLAWED), tmp_path / "out", form)

    read = "read_json" if form == "json" else "read_parquet"
    found = duckdb.sql(f"""
        SELECT id, key::VARCHAR, timestamp_ms, value->>'n', value->>'text', value->>'raw'
        FROM {read}('{tmp_path}/out/part-*') ORDER BY timestamp_ms""").fetchall()
    assert found == [
        (f"r{n}", f"k{n % 3}", 1_000 + n, str(n), "zwölf\n", "AP8=") for n in range(20)
    ]
    assert [id_ for id_, _ in failed] == [id_ for id_, _ in REASONS]
    assert all(part in reason for (_, reason), (_, part) in zip(failed, REASONS, strict=True))
    assert len(visible(tmp_path / "out")) == len(list((tmp_path / "out").iterdir())) == 1


def test_pandas_reads_both_formats(tmp_path):
    for form in ("json", "parquet"):
        written(rows(3), tmp_path / form, form)

    [lines], [table] = (list((tmp_path / form).iterdir()) for form in ("json", "parquet"))
    assert list(pandas.read_json(lines, lines=True).id) == ["r0", "r1", "r2"]
    assert [json.loads(text)["n"] for text in pandas.read_parquet(table).value] == [0, 1, 2]


def test_a_key_that_is_no_text_is_base64_in_json_and_bytes_in_parquet(tmp_path):
    for form in ("json", "parquet"):
        written((Record("a", 1, key=b"\xff\x00"), Record("b", None)), tmp_path / form, form)

    assert [(row["key"], row["value"]) for row in json_rows(tmp_path / "json")] == [
        ("/wA=", 1),
        (None, None),
    ]
    table = pandas.read_parquet(tmp_path / "parquet")
    assert list(table.key) == [b"\xff\x00", None]
    assert list(table.value) == ["1", "null"]


def test_a_second_run_adds_files_and_replaces_none(tmp_path):
    for start in (0, 5):
        written(rows(10)[start : start + 5], tmp_path, "json")

    assert len(visible(tmp_path)) == 2
    assert sorted(row["value"]["n"] for row in json_rows(tmp_path)) == list(range(10))


def test_a_parquet_batch_that_is_written_again_replaces_itself(tmp_path):
    sink = files_sink(tmp_path, format="parquet")
    for _ in range(2):
        writer = sink.writer()
        assert list(writer.write(rows(10))) == []
        writer.close()

    assert len(visible(tmp_path)) == 1
    assert len(pandas.read_parquet(tmp_path)) == 10


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_full_disk_is_an_unavailable_store_and_no_dead_letter(form, tmp_path):
    writer = files_sink(tmp_path, format=form).writer()
    lines = [record.replace(value=b"x" * 200) for record in rows(200)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises(StoreUnavailable, match="cannot write"):
            writer.write(lines)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("part-*"))
    writer.close()


def test_wrong_arguments_and_deletes_are_refused_with_what_to_do(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="format must be one of json, parquet, got 'csv'"):
        files_sink(tmp_path, format="csv")
    with pytest.raises(ConfigError, match=r"folder must be a path, such as .*, got ''"):
        files_sink("")
    with pytest.raises(ConfigError, match=r"folder must be a path: Python writes Parquet"):
        files_sink("s3://bucket/out", format="parquet")
    with pytest.raises(ConfigError, match="cannot be created"):
        files_sink(file / "out").prepare()
    with pytest.raises(ConfigError, match="written by Flink only"):
        files_sink("s3://bucket/out").writer()
    deletes = ListSource((Record("d", None, kind="delete", document="d"),))
    for form in ("json", "parquet"):
        graph = sage.flow.read("in", deletes).write("out", files_sink(tmp_path, format=form))
        with pytest.raises(PipelineError, match="Files does not support deletes"):
            sage.flow.check(graph, "local")


def test_both_formats_have_a_yaml_form(tmp_path):
    words = vocabulary(sage_connectors)
    read = sage.flow.read("in", sage_connectors.files(tmp_path))
    for form in ("json", "parquet"):
        graph = read.write("out", files_sink(tmp_path, format=form))
        assert from_yaml(to_yaml(graph, words), words) == graph


@dataclass(frozen=True)
class FailAfterFirstFile(FileSink):
    """A sink whose writer fails once: some rows after the first file is in ``folder``.

    Behind :meth:`slowly`, a step that pauses until then, most rows are still to come.
    """

    folder: str = ""
    batch: BatchLimits = field(default_factory=lambda: BatchLimits(2, linger_s=0.01))

    def writer(self) -> "FailAfterFirstFile":
        return self

    def slowly(self) -> Slowly:
        return Slowly(0.01, until=f"{self.path}.failed-once")

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        armed, failed = Path(f"{self.path}.armed"), Path(f"{self.path}.failed-once")
        if not armed.exists() and any(Path(self.folder).glob("part-*")):
            armed.write_text(str(self.count()))
        rows_max = int(armed.read_text()) + 10 if armed.exists() else self.count() + 1
        if self.count() >= rows_max and not failed.exists():
            failed.touch()
            raise ConfigError("the test: this subtask fails once")
        return super().write(records)


COUNT = 3_000
#: Checkpoints are taken among the records.
FAILING = FlinkOptions(target="local", checkpoint_interval_s=1, bundle_items=20)


def flaw_at_5(n: int, random: Random) -> Any:
    return {"n": float("nan") if n == 5 else n}


@pytest.mark.flink
@pytest.mark.timeout(240)
def test_on_flink_json_files_have_each_record_once_over_a_restart(tmp_path, minicluster):
    once = tmp_path / "once"
    witness = FailAfterFirstFile(str(tmp_path / "witness"), folder=str(once))
    failed = FileSink(str(tmp_path / "failed"))
    source = generator(COUNT, per_s=300, make=flaw_at_5, paced=False)
    numbers = sage.flow.read("in", source).map("slowly", witness.slowly())
    graph = sage.flow.pipeline(
        numbers.write("out", files_sink(once)), numbers.write("witness", witness)
    ).dead_letters_to(failed)

    sage.flow.submit(graph, name="files-once", options=FAILING)
    wait_until(lambda: once.exists() and len(json_rows(once)) >= COUNT - 1, 180, "all rows")
    wait_until(lambda: failed.count() > 0, 30, "the dead letter")
    time.sleep(1)

    again = [record.id for record in witness.read_records()]
    assert len(again) > len(set(again))  # the restart read records again
    [found] = duckdb.sql(f"""
        SELECT count(*), count(DISTINCT id), sum((value->>'n')::INT)
        FROM read_json('{once}/part-*')""").fetchall()
    assert found == (COUNT - 1, COUNT - 1, sum(range(COUNT)) - 5)
    assert len(visible(once)) > 1  # some before the restart, some after it
    letters = {(one.id, one.step) for one in map(from_message, failed.read_records())}
    assert letters == {("generator/0/5", "out.encode")}


@pytest.mark.flink
@pytest.mark.timeout(240)
def test_on_flink_parquet_files_have_each_record_and_may_repeat_it_after_a_restart(
    tmp_path, minicluster
):
    folder = tmp_path / "out"
    witness = FailAfterFirstFile(str(tmp_path / "witness"), folder=str(folder))
    source = generator(COUNT, per_s=300, paced=False)
    numbers = sage.flow.read("in", source).map("slowly", witness.slowly())
    batches = numbers.batch("hundreds", items_max=100, bytes_max=1_000_000, linger_s=0.2)
    graph = sage.flow.pipeline(
        batches.write("out", files_sink(folder, format="parquet")),
        numbers.write("witness", witness),
    ).dead_letters_to(FileSink(str(tmp_path / "failed")))

    def read() -> tuple[int, int]:
        if not list(folder.glob("part-*")):
            return (0, 0)
        select = "SELECT count(*), count(DISTINCT id)"
        return duckdb.sql(f"{select} FROM read_parquet('{folder}/part-*')").fetchall()[0]

    sage.flow.submit(graph, name="files-parquet", options=FAILING)
    wait_until(lambda: read()[1] >= COUNT, 180, "all rows")

    assert Path(f"{witness.path}.failed-once").exists()
    assert read()[1] == COUNT
