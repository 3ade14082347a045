"""Members, attachments, lines and rows: the good ones are read, each bad one is accounted for."""

import asyncio
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import sage_flink as sage
from benchmark_sage.documents import formats, office
from benchmark_sage.documents.articles import ARTICLES
from benchmark_sage.documents.oddities import mixed_archive
from sage_connectors import DecodeFile, files
from sage_connectors.documents import FilePart, documents
from sage_connectors.documents.archive import Budget, gz, zip_archive
from sage_flink.common import Record, Rejected
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.flow import Outcome
from sage_flink.flow.lists import ListSink, ListSource
from sage_jobs import corpus


def read(path: str, data: bytes, decode: DecodeFile = DecodeFile()) -> Outcome:  # noqa: B008
    """The documents and dead letters of one file."""
    return run(Record(path, data, 5, headers={"path": b"/d"}, origin=path), decode)


def run(record: Record, decode: DecodeFile = DecodeFile()) -> Outcome:  # noqa: B008
    source = sage.flow.read("files", ListSource((record,)))
    return asyncio.run(sage.flow.run(source.flat_map("decode", decode).write("out", ListSink())))


def texts(outcome: Outcome) -> dict[str, str]:
    return {record.id: record.value["text"] for record in outcome.written["out"]}


def reasons(outcome: Outcome) -> dict[str, str]:
    return {failed.id: failed.reason for failed in outcome.failed}


def test_one_bad_line_of_twenty_one_is_one_dead_letter_and_twenty_documents() -> None:
    lines = [f'{{"text": "line {n}"}}' for n in range(1, 22)]
    lines[6] = '{"text": "cut'

    outcome = read("x.jsonl", "\n".join(lines).encode())

    assert texts(outcome) == {f"x.jsonl#{n}": f"line {n}" for n in range(1, 22) if n != 7}
    (failed,) = outcome.failed
    assert (failed.id, failed.step, failed.record.origin) == ("x.jsonl#7", "decode", "x.jsonl")
    assert failed.reason.startswith("x.jsonl#7: not JSON")
    assert failed.record.value == b'{"text": "cut'


def test_a_row_with_too_many_fields_is_one_dead_letter() -> None:
    outcome = read("x.csv", b"text,id\nfirst,a\nsecond,b,c\n")

    assert texts(outcome) == {"a": "first"}
    assert reasons(outcome) == {"x.csv#2": "x.csv#2: the row has 3 fields, the header 2"}


def test_the_good_members_of_an_archive_are_read_beside_the_bad_ones() -> None:
    outcome = read("a/x.zip", mixed_archive())

    assert texts(outcome) == {"a/x.zip!good.txt": "good text", "a/x.zip!../up.txt": "up text"}
    found = reasons(outcome)
    assert {id_: found[id_].partition(": ")[2][:10] for id_ in found} == {
        "a/x.zip!broken.txt": "cannot be ",
        "a/x.zip!locked.txt": "encrypted",
        "a/x.zip!link.txt": "a link; li",
    }
    assert all(failed.record.headers["unreadable"] for failed in outcome.failed)


def test_archives_in_archives_and_mails_are_read() -> None:
    letter = formats.mail(ARTICLES[0], {"notes.md.gz": formats.gzip_bytes(b"# Notes\n\ntext")})

    outcome = read("x.zip", formats.zip_archive({"in/letter.eml": letter, "photo.png": b"x"}))

    assert reasons(outcome) == {}
    by_id = {record.id: record.value["title"] for record in outcome.written["out"]}
    assert by_id == {
        "x.zip!in/letter.eml": "Refund policy",
        "x.zip!in/letter.eml!notes.md.gz!notes.md": "Notes",
    }
    assert {record.timestamp_ms for record in outcome.written["out"]} == {5}


def test_two_attachments_of_one_name_are_two_documents() -> None:
    first = formats.mail(ARTICLES[0], {"a.txt": b"first"})
    boundary = first.split(b'boundary="')[1].split(b'"')[0]
    part = first[first.rindex(b"--" + boundary + b"\n") : first.rindex(b"--" + boundary + b"--")]
    both = first.replace(part, part * 2)

    outcome = read("x.eml", both)

    assert set(texts(outcome)) == {"x.eml", "x.eml!a.txt", "x.eml!a-2.txt"}


def test_a_broken_chapter_of_a_book_is_one_dead_letter() -> None:
    book = formats.epub(ARTICLES[0])
    with zipfile.ZipFile(BytesIO(book)) as package:
        kept = {n: package.read(n) for n in package.namelist() if "second" not in n}

    outcome = read("x.epub", formats.zip_archive(kept))

    assert list(texts(outcome)) == ["x.epub"]
    assert list(reasons(outcome)) == ["x.epub!OEBPS/second part.xhtml"]


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("x.jsonl", b"1\n2", "x.jsonl#1: must be an object"),
        ("x.zip", formats.zip_archive({"a.txt": b"\x00", "b.txt": b""}), "x.zip!a.txt: holds NUL"),
        ("x.zip", formats.zip_archive({"a.png": b"x"}), "no part of a known kind"),
        ("x.zip", b"PK", "broken zip archive"),
        ("x.tar.gz", formats.gzip_bytes(b"x"), "no part of a known kind"),
        ("x.md.gz", b"\x1f\x8b\x08", "broken gzip"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_one_dead_letter(
    path: str, data: bytes, reason: str
) -> None:
    outcome = read(path, data)

    (failed,) = outcome.failed
    assert (failed.id, failed.record.value) == (path, data)
    assert reason in failed.reason


def test_a_replay_of_a_part_gives_the_document_that_the_file_would_have_given() -> None:
    data = formats.zip_archive(
        {"a.csv": b"text,id\nshort,\nmuch too long,\n", "b.txt": b"much too long"}
    )
    outcome = read("x.zip", data, DecodeFile(text_bytes_max=8))
    letters = [from_message(to_message(failed, "job")) for failed in outcome.failed]

    again = [run(letter.record(), DecodeFile(text_bytes_max=8)) for letter in letters]
    replayed = [run(letter.record()) for letter in letters]

    assert set(reasons(outcome)) == {"x.zip!a.csv#2", "x.zip!b.txt"}
    assert [reasons(one) for one in again] == [{letter.id: letter.reason} for letter in letters]
    written = [record for one in (outcome, *replayed) for record in one.written["out"]]
    whole = read("x.zip", data).written["out"]
    assert sorted(written, key=lambda r: r.id) == sorted(whole, key=lambda r: r.id)


def test_what_an_archive_unpacks_to_is_limited_over_all_members() -> None:
    data = formats.zip_archive({f"{n}.txt": bytes(100) for n in range(5)})

    *good, over = zip_archive("x.zip", data, Budget(bytes_left=250))

    assert [part.path for part in good] == ["x.zip!0.txt", "x.zip!1.txt"]
    assert (over.path, over.data) == ("x.zip!2.txt", None)
    assert "unpacks to more than" in over.reason


def test_the_limit_holds_over_archives_in_archives() -> None:
    budget = Budget(bytes_left=250)
    data = formats.gzip_bytes(bytes(100))

    parts = [part for _ in range(3) for part in gz("x.txt.gz", data, budget)]

    assert [part.data is None for part in parts] == [False, False, True]


def test_the_members_of_an_archive_are_limited() -> None:
    data = formats.zip_archive({f"{n}.txt": b"text" for n in range(5)})

    *good, over = zip_archive("x.zip", data, Budget(members_left=2))

    assert [part.path for part in good] == ["x.zip!0.txt", "x.zip!1.txt"]
    assert "more than 10000 members" in over.reason


def test_archives_are_nested_up_to_a_limit() -> None:
    data = b"text"
    for level in range(7):
        data = formats.zip_archive({f"{level}.zip" if level else "a.txt": data})

    with pytest.raises(Rejected, match="nested more than 5 deep"):
        documents("x.zip", data)


def test_a_package_that_unpacks_to_too_much_is_not_unpacked() -> None:
    with zipfile.ZipFile(BytesIO(office.docx(ARTICLES[0]))) as package:
        kept = {name: package.read(name) for name in package.namelist()}
    kept["word/document.xml"] += b" " * (16 << 20)

    with pytest.raises(Rejected, match=r"a\.docx: unpacks to 1\d+ bytes; at most 16777216"):
        documents("a.docx", formats.zip_archive(kept))


def test_a_part_can_be_read_by_its_path_alone() -> None:
    assert list(documents("d/x.jsonl#7", b'{"text": "t"}')) == [
        {"id": "d/x.jsonl#7", "title": "x", "text": "t"}
    ]
    (document,) = documents("a.zip!b/c.txt", b"t")
    assert not isinstance(document, FilePart)
    assert (document["id"], document["title"]) == ("a.zip!b/c.txt", "c")


def test_the_demo_skips_the_bad_parts_of_a_file(tmp_path: Path) -> None:
    from sage_jobs import corpus

    (tmp_path / "x.jsonl").write_text('{"text": "good"}\n{"text":\n')
    skipped: list[str] = []

    made = list(corpus.folder(tmp_path, skipped.append))

    assert [document["id"] for document in made] == ["x.jsonl#1"]
    assert len(skipped) == 1
    assert len(list(files(tmp_path).records())) == 1


def test_of_two_lines_with_one_id_the_second_is_a_dead_letter() -> None:
    outcome = read("x.jsonl", b'{"id": 1, "text": "first"}\n{"id": "1", "text": "second"}')

    assert texts(outcome) == {"1": "first"}
    assert reasons(outcome) == {"x.jsonl#2": "x.jsonl#2: its id '1' is that of x.jsonl#1 already"}


def test_the_demo_goes_on_behind_a_line_that_is_nested_too_deeply(tmp_path: Path) -> None:
    deep = '{"text": "x", "more": ' + "[" * 3000 + "]" * 3000 + "}"
    (tmp_path / "x.jsonl").write_text(deep + '\n{"text": "a\\ud800b"}\n')
    skipped: list[str] = []

    [document] = corpus.folder(tmp_path, skipped.append)

    assert (document["id"], document["text"]) == ("x.jsonl#2", "a\ufffdb")
    assert corpus.message(document)[0] == b"x.jsonl#2"
    assert skipped == ["x.jsonl#1: its JSON is nested too deeply"]
