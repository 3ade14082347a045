"""Documents of the demo: this interpreter's Python language reference, or a folder of files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data import topics
from typing import Any

import msgspec

from sage_connectors import DecodeFile, files
from sage_flink.common import Rejected
from sage_flink.common.records import Refusal

Document = dict[str, Any]
#: The first words of a version note.
NOTES = ("New in version", "Changed in version", "Deprecated since")


def python_reference() -> list[Document]:
    """The language reference that CPython carries for ``help()``: one document a topic.

    Event times start at the file's own, a millisecond apart, so feeding it again is idempotent.
    """
    modified_ms = int(Path(topics.__file__).stat().st_mtime * 1000)
    return [
        {
            "type": "document",
            "id": f"python/{name}",
            "title": heading(text) or name,
            "text": text.strip(),
            "modified_ms": modified_ms + place,
        }
        for place, (name, text) in enumerate(sorted(topics.topics.items()))
    ]


def folder(path: Path, on_skip: Callable[[str], object]) -> Iterator[Document]:
    """The documents of all files under ``path`` that have a known suffix, in order of path.

    A file, or a part of one, that is no document is skipped; ``on_skip`` gets the reason.

    Raises:
        ConfigError: the folder does not exist.
    """
    decode = DecodeFile()
    for record in files(str(path)).records():
        try:
            made = list(decode(record))
        except Rejected as rejection:
            on_skip(str(rejection))
            continue
        for document in made:
            if isinstance(document, Refusal):
                on_skip(document.reason)
                continue
            value = document.value
            yield {
                "type": "document",
                "id": value["doc"],
                "title": value["title"],
                "text": value["text"],
                "modified_ms": document.timestamp_ms,
            }


def message(document: Document) -> tuple[bytes, bytes]:
    """Key and value of the document's Kafka message."""
    return document["id"].encode(), msgspec.json.encode(document)


def heading(text: str) -> str:
    """The first line of a topic that is not a rule or empty."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and set(line) - set("*=-~^")), "")


def first_sentence(text: str) -> str:
    """The first sentence after the heading, as one line, without grammar and version notes."""
    paragraphs = (" ".join(part.split()) for part in text.strip().split("\n\n")[1:])
    prose = (p for p in paragraphs if "::=" not in p and not p.startswith(NOTES) and heading(p))
    return next(prose, heading(text)).split(". ")[0].removesuffix(".") + "."
