"""Files and steps on Flink: the same records as in process, each once.

A MiniCluster in this process runs the jobs.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minicluster import LOCAL, QUIET, DiscardSink, FailOnce, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_connectors import files
from sage_flink.common import Record
from sage_flink.flow import OpenContext
from sage_flink.flow.lists import ListSource

pytestmark = [
    pytest.mark.flink,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("restored_environment", "no_worker_left"),
    *QUIET,
]


def test_flink_reads_the_same_files_as_this_process(folder: Path, tmp_path_factory: Any) -> None:
    source, sink = files(folder), FileSink(str(tmp_path_factory.mktemp("out") / "records"))
    graph = sage.flow.read("in", source).write("out", sink).dead_letters_to(DiscardSink())

    sage.flow.submit(graph, name="conformance-files", options=LOCAL)
    wait_until(lambda: len(sink.read_records()) >= 3, 120, "three records")

    assert sorted(sink.read_records(), key=lambda record: record.id) == list(source.records())


def test_both_targets_read_a_folder_with_odd_names_and_links(tmp_path: Path) -> None:
    folder = tmp_path / "mixed: 100% #1"
    sub = folder / "sub folder"
    sub.mkdir(parents=True)
    good = [
        "Re: plan.md",
        "photo 12:30.md",
        "a b.md",
        "50%25.md",
        "x?y#z.md",
        "größe.md",
        "a\nb.md",
    ]
    for name in [*good, ".hid:den.md", "other:suffix.bin"]:
        (folder / name).write_text(name)
    (sub / "deep.md").write_text("deep")
    (folder / "gone.md").symlink_to("nowhere.md")
    (folder / ".gone.md").symlink_to("nowhere.md")
    (folder / "gone.bin").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    (folder / "self.md").symlink_to("self.md")
    (folder / "twin.md").symlink_to(sub / "deep.md")
    escaped = {b"\xff.md": r"\xff.md", b"\xfe.md": r"\xfe.md", rb"\xff.md": r"\x5cxff.md"}
    for raw, id_ in escaped.items():
        (folder / os.fsdecode(raw)).write_text(id_)
    source, sink = files(folder), FileSink(str(tmp_path / "records"))
    graph = sage.flow.read("in", source).write("out", sink).dead_letters_to(DiscardSink())
    unreadable = {"gone.md", "self.md"}

    sage.flow.submit(graph, name="conformance-odd-files", options=LOCAL)
    wait_until(lambda: len(sink.read_records()) >= len(good) + 6, 120, "all records")

    for records in (list(source.records()), sink.read_records()):
        assert {r.id: r.value for r in records} == {
            **{name: name.encode() for name in good},
            **{id_: id_.encode() for id_ in escaped.values()},
            "sub folder/deep.md": b"deep",
            **dict.fromkeys(unreadable),
        }
        assert {r.id for r in records if "unreadable" in r.headers} == unreadable


@dataclass
class SuffixOperator:
    """Appends the name of its step to each value; logs to a file when it is opened and closed."""

    log: str

    def open(self, context: OpenContext) -> None:
        self.suffix = f"/{context.step}"
        self._note(f"open {context.job} {context.step} {context.subtask} of {context.parallelism}")

    def __call__(self, record: Record) -> Any:
        if record.value == "bad/first":
            raise ValueError("it says so")
        return record.value + self.suffix

    def close(self) -> None:
        self._note(f"close {self.suffix}")

    def _note(self, line: str) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{line}\n")


def test_each_step_opens_and_closes_its_own_operator(tmp_path: Path) -> None:
    log, sink, failed = (str(tmp_path / name) for name in ("log", "out", "failed"))
    records = tuple(Record(value, value, origin=value) for value in ("good", "bad"))
    operator = SuffixOperator(log)
    graph = (
        sage.flow.read("in", ListSource(records))
        .map("first", operator)
        .map("second", operator)
        .write("out", FileSink(sink))
        .dead_letters_to(FileSink(failed))
    )

    sage.flow.submit(graph, name="opened", options=LOCAL)
    wait_until(
        lambda: FileSink(sink).read_records() and FileSink(failed).read_records(),
        120,
        "both records",
    )
    wait_until(lambda: len(Path(log).read_text().splitlines()) == 4, 60, "both are closed")

    assert [record.value for record in FileSink(sink).read_records()] == ["good/first/second"]
    lines = Path(log).read_text().splitlines()
    assert lines[:2] == ["open opened first 0 of 1", "open opened second 0 of 1"]
    assert sorted(lines[2:]) == ["close /first", "close /second"]
    reason = FileSink(failed).read_records()[0].headers["sage.dead-letter.reason"].decode()
    assert reason.startswith("ValueError: it says so (test_flink.py:")


def test_a_source_without_records_ends_and_the_others_are_read_once(tmp_path: Path) -> None:
    out = FailOnce(str(tmp_path / "out"), rows_max=1_000)  # it notes each start, and never fails
    some = ListSource(tuple(Record(f"n/{n}", n, origin=f"n/{n}") for n in range(3)))
    empty = sage.flow.read("empty", ListSource(()))

    graph = sage.flow.union("all", empty, sage.flow.read("some", some)).write("out", out)
    sage.flow.submit(graph.dead_letters_to(DiscardSink()), name="empty", options=LOCAL)
    wait_until(lambda: out.count() >= 3, 60, "three records")
    time.sleep(3)  # a restart would read them again

    assert sorted(record.id for record in out.read_records()) == ["n/0", "n/1", "n/2"]
    assert Path(f"{out.path}.writers").read_text() == "opened\n"
