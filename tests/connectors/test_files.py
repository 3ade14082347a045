"""What a folder may hold besides files: never waited for, each with the reason in a header."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_connectors import files
from sage_connectors.files import path_text, read_content
from sage_flink.common import ConfigError

pytestmark = pytest.mark.timeout(20)


def only(folder: Path) -> dict[str, str]:
    """The headers of the one record of a folder that has no value."""
    [record] = files(folder).records()
    assert record.value is None
    return {name: value.decode() for name, value in record.headers.items() if name != "path"}


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{(folder := os.open(path.parent, os.O_RDONLY))}/{path.name}")
        os.close(folder)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device])
def test_what_is_no_regular_file_is_not_opened(make, tmp_path):
    make(tmp_path / "a.txt")

    assert only(tmp_path) == {"unreadable": "not a regular file"}


def test_an_error_while_reading_has_the_words_of_the_operating_system(tmp_path):
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")

    assert only(tmp_path) == {"unreadable": "Input/output error"}


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1 << 40)

    assert only(tmp_path) == {"oversize": str(1 << 40)}


def read_during_changes(path, changes):
    """Read the file; a writer replaces it during each of the first reads."""

    def read(file):
        data = file.read()
        if changes:
            path.with_suffix(".new").write_text(changes.pop(0))
            path.with_suffix(".new").replace(path)
        return data

    return read_content(path, read)


def test_a_file_that_changes_once_while_it_is_read_is_read_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")

    assert read_during_changes(path, ["two"]).value == b"two"


def test_a_file_that_changes_at_each_read_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")

    with pytest.raises(OSError, match="it changed while it was read, each time"):
        read_during_changes(path, ["two", "six"])


def test_a_byte_of_a_name_that_is_not_utf8_is_escaped_in_the_id(tmp_path):
    names = {
        b"\xfe.md": r"\xfe.md",
        b"\xff.md": r"\xff.md",
        rb"\xff.md": r"\x5cxff.md",
        rb"\x2d.md": r"\x2d.md",
        "\ufffd.md".encode(): "\ufffd.md",
        b"d\xe2\x82/caf\xc3\xa9.md": "d\\xe2\\x82/café.md",
    }
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name)

    records = list(files(tmp_path).records())

    assert {r.id: r.value for r in records} == {id_: name for name, id_ in names.items()}
    assert all(record.origin == record.id for record in records)
    whole = {r.id: r.headers["path"].removeprefix(os.fsencode(tmp_path) + b"/") for r in records}
    assert whole == {id_: name for name, id_ in names.items()}


@given(st.lists(st.sampled_from([rb"\x", b"f", b"5c", b"\xff", b"\xe2\x82", b"\xac", b"\xc3\xa9"])))
def test_no_two_paths_have_one_text(pieces):
    path = b"".join(pieces)

    text = path_text(os.fsdecode(path))

    raw = re.sub(rb"\\x(5c|[89a-f][0-9a-f])", lambda m: bytes([int(m[1], 16)]), text.encode())
    assert raw == path


def test_on_flink_the_path_of_the_folder_must_be_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "a.md").write_text("a")

    with pytest.raises(ConfigError, match="the path of the folder must be UTF-8 on Flink"):
        files(folder).flink_source(None)
    assert [record.id for record in files(folder).records()] == ["a.md"]


def test_a_folder_deeper_than_the_stack_of_python_is_read(tmp_path):
    folders = "d/" * 1000
    subprocess.run(["mkdir", "-p", folders], cwd=tmp_path, check=True)
    (tmp_path / folders / "a.txt").write_text("deep")

    try:
        [record] = files(tmp_path).records()
    finally:  # pytest's own clean-up is recursive, and fails
        subprocess.run(["rm", "-r", "d"], cwd=tmp_path, check=True)
    assert (record.id, record.value) == (f"{folders}a.txt", b"deep")


def test_a_folder_that_cannot_be_listed_is_one_record(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.txt").write_text("a")
    scandir = os.scandir

    def scan(path):  # root may list every folder
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)

    good, locked = files(tmp_path).records()
    assert (good.id, good.value) == ("a.txt", b"a")
    assert (locked.id, locked.value) == ("locked", None)
    assert locked.headers["unreadable"] == b"the folder cannot be listed"
