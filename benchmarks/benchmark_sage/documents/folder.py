"""Every format in six languages, and what has to come of each file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmark_sage.documents import formats, office
from benchmark_sage.documents.articles import ARTICLES, Article

#: Encodings of the time before UTF-8.
_LEGACY = {"de": "cp1252", "fr": "cp1252", "ru": "cp1251", "ja": "shift_jis", "zh": "gb18030"}


@dataclass(frozen=True, slots=True)
class ExpectedDocuments:
    """What a folder has to give: each document's id with words of its text, each dead letter's."""

    documents: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: "ExpectedDocuments") -> None:
        """Add those of another part of the folder."""
        self.documents.update(other.documents)
        self.failed.update(other.failed)


class _Format(NamedTuple):
    """A file of an article; ``documents`` are the ends of their ids with words of their text."""

    name: str
    make: Callable[[Article], bytes]
    documents: Callable[[Article], dict[str, str]] = lambda article: {"": article.sentence}


def _items(article: Article) -> dict[str, str]:
    return {"#1": article.items[0], "#2": article.items[1]}


def _cell(article: Article) -> dict[str, str]:
    header, first, *_ = article.table
    return {"": f"| {' | '.join(header)} |\n| --- | --- |\n| {' | '.join(first)} |"}


def _legacy(article: Article) -> bytes:
    text = f"{article.sentence} {' '.join(article.items)}. {article.sentence}"
    return text.encode(_LEGACY.get(article.language, "utf-16"))


def _bundle(article: Article) -> bytes:
    inner = formats.zip_archive({"deep/page.html": formats.html(article), "photo.png": b"\x89PNG"})
    return formats.zip_archive(
        {"a/report.docx": _docx(article), "notes.txt": formats.txt(article), "inner.zip": inner}
    )


_docx, _pptx, _xlsx = cache(office.docx), cache(office.pptx), cache(office.xlsx)
_FORMATS = (
    _Format("report.txt", formats.txt),
    _Format("report.md", formats.markdown),
    _Format("report.html", formats.html),
    _Format("module.py", formats.python),
    _Format("table.csv", formats.csv_table, _cell),
    _Format("table.tsv", lambda article: formats.csv_table(article, "\t"), _cell),
    _Format(
        "rows.csv",
        formats.csv_rows,
        lambda a: dict(zip(("#1", "#2", "#3"), (a.sentence, *a.items), strict=True)),
    ),
    _Format("settings.json", formats.json_object, lambda a: {"": f'"{a.items[0]}"'}),
    _Format("items.jsonl", formats.json_lines, _items),
    _Format("book.epub", formats.epub),
    _Format("letter.eml", formats.mail),
    _Format("analysis.ipynb", formats.notebook),
    _Format("report.docx", _docx),
    _Format("slides.pptx", _pptx),
    _Format("table.xlsx", _xlsx),
    _Format("wide.txt", lambda article: formats.txt(article).decode().encode("utf-16")),
    _Format("legacy.txt", _legacy),
    _Format(
        "report.md.gz",
        lambda article: formats.gzip_bytes(formats.markdown(article)),
        lambda article: {"!report.md": article.sentence},
    ),
    _Format(
        "bundle.zip",
        _bundle,
        lambda a: dict.fromkeys(
            ("!a/report.docx", "!notes.txt", "!inner.zip!deep/page.html"), a.sentence
        ),
    ),
)


def make_articles(
    root: Path, *, copies: int, articles: tuple[Article, ...] = ARTICLES
) -> ExpectedDocuments:
    """Every format of every article, ``copies`` times; 19 files each."""
    expected = ExpectedDocuments()
    for article in articles:
        made = [(one, one.make(article)) for one in _FORMATS]
        for number in range(copies):
            folder = Path(article.language, f"copy {number}")
            (root / folder).mkdir(parents=True)
            for one, data in made:
                (root / folder / one.name).write_bytes(data)
                expected.add(ExpectedDocuments(dict(_ids(folder / one.name, one, article))))
    return expected


def _ids(path: Path, one: _Format, article: Article) -> Iterator[tuple[str, str]]:
    for end, words in one.documents(article).items():
        yield f"{path.as_posix()}{end}", words
