"""Conformance suite of the sources that this process can read."""

import os
import pickle
from pathlib import Path

import pytest

from sage_connectors import files
from sage_flink.common import ConfigError, decode, encode
from sage_flink.flow.ports import Source


def test_records_are_the_same_when_read_again(source: Source) -> None:
    first, second = list(source.records()), list(source.records())

    assert first
    assert first == second


def test_ids_are_distinct_and_name_their_origin(source: Source) -> None:
    found = list(source.records())

    assert len({record.id for record in found}) == len(found)
    assert all(record.origin == record.id for record in found)


def test_records_survive_encoding(source: Source) -> None:
    assert all(decode(encode(record)) == record for record in source.records())


def test_a_source_can_be_pickled(source: Source) -> None:
    assert pickle.loads(pickle.dumps(source)) == source


def test_files_are_named_by_their_path_in_the_folder(folder: Path) -> None:
    source = files(folder)
    os.utime(folder / "a.txt", ns=(0, 1_234_567_890))

    found = {record.id: record for record in source.records()}

    assert list(found) == ["a.txt", "b/c.md", "b/d.PDF"]
    assert found["a.txt"].value == b"a.txt"
    assert found["a.txt"].timestamp_ms == 1234
    assert found["b/c.md"].headers == {"path": str(folder / "b/c.md").encode()}


def test_subfolders_and_suffixes_are_configurable(folder: Path) -> None:
    flat = files(folder, suffixes=(), recursive=False)

    assert [record.id for record in flat.records()] == ["a.txt", "z.bin"]


def test_a_file_too_large_has_no_value_but_a_header(tmp_path: Path) -> None:
    with (tmp_path / "big.txt").open("wb") as big:
        big.truncate((64 << 20) + 1)

    [record] = files(tmp_path).records()

    assert record.value is None
    assert record.headers["oversize"] == b"67108865"


def test_a_file_that_cannot_be_read_has_no_value_but_a_header(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")

    [record] = files(tmp_path).records()

    assert record.value is None
    assert record.headers["unreadable"] == b"No such file or directory"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder must exist"):
        files(tmp_path / "nowhere").records()
    with pytest.raises(ConfigError, match=r"suffixes must be .*\.md"):
        files(tmp_path, suffixes=("md",))
