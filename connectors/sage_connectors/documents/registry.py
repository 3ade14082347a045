"""Which suffix is read by which reader, and a file's documents with those of its parts."""

import re
from collections.abc import Callable, Iterator

from sage_connectors.documents.archive import Budget, gz, zip_archive
from sage_connectors.documents.csv_files import csv_file
from sage_connectors.documents.docx import docx
from sage_connectors.documents.epub import epub
from sage_connectors.documents.html import html
from sage_connectors.documents.json_files import json_file, json_lines
from sage_connectors.documents.mail import mail
from sage_connectors.documents.markdown import markdown
from sage_connectors.documents.notebook import notebook
from sage_connectors.documents.parts import Document, FilePart, suffix_of
from sage_connectors.documents.pdf import pdf
from sage_connectors.documents.pptx import pptx
from sage_connectors.documents.text import plain_text, source_code
from sage_connectors.documents.xlsx import xlsx
from sage_flink.common.errors import Rejected, SageError

#: Path and bytes of a file, or of a part of one -> its documents and its parts.
Reader = Callable[[str, bytes], Iterator[Document | FilePart]]
#: An archive in a mail in an archive, and so on.
DEPTH_MAX = 5
#: In the name of an object, another one at each run; a reason is the same in a replay.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

_CODE = (
    ".bash .c .cc .cfg .cpp .cs .css .go .gradle .h .hpp .ini .java .jl .js .jsx .kt .lua .mjs "
    ".php .pl .proto .py .pyi .r .rb .rs .scala .sh .sql .swift .toml .ts .tsx .xml .yaml .yml"
)
_READERS: dict[str, Reader] = {
    ".txt": plain_text,
    ".rst": plain_text,
    ".md": markdown,
    ".html": html,
    ".htm": html,
    ".xhtml": html,
    ".pdf": pdf,
    ".docx": docx,
    ".pptx": pptx,
    ".xlsx": xlsx,
    ".csv": csv_file,
    ".tsv": csv_file,
    ".json": json_file,
    ".jsonl": json_lines,
    ".epub": epub,
    ".eml": mail,
    ".ipynb": notebook,
    **dict.fromkeys(_CODE.split(), source_code),
}
_ARCHIVES: dict[str, Callable[[str, bytes, Budget], Iterator[FilePart]]] = {
    ".gz": gz,
    ".zip": zip_archive,
}
#: All suffixes that are read.
SUFFIXES = (*_READERS, *_ARCHIVES)


def documents(
    path: str, data: bytes | None, *, text_bytes_max: int = 4_000_000
) -> Iterator[Document | FilePart]:
    """The documents of the file ``path``, and the parts of it that cannot be read.

    Pure: the same bytes give the same documents, with the same ids: the path of the file or part,
    or the own ``id`` of a line or row. A document is ``id``, ``title``, ``text``, and the further
    entries of a line; ``metadata`` has the fields of a front matter. A part in the result has a
    ``reason``; so every part of a file that is read is accounted for. ``path`` may be that of a
    part, with its bytes.

    Raises:
        Rejected: nothing of it can be read: the suffix is unknown, or the file is broken,
            encrypted, without text, or has more than ``text_bytes_max`` bytes of it.
    """
    return iter(_Reading(text_bytes_max).read(FilePart(path, data)))


class _Reading:
    """The reading of one file with all its parts."""

    def __init__(self, text_bytes_max: int) -> None:
        self.text_bytes_max = text_bytes_max
        self.budget = Budget()
        #: The part that had each id first.
        self.ids: dict[str, str] = {}

    def read(self, part: FilePart, depth: int = 0) -> list[Document | FilePart]:
        """Documents, and parts with their reason.

        Raises:
            Rejected: no document at all.
        """
        if depth > DEPTH_MAX:
            raise Rejected(f"{part.path}: its archives are nested more than {DEPTH_MAX} deep")
        made: list[Document | FilePart] = []
        try:
            for one in self._documents(part):
                made += self._outcome(one, part.path, depth)
        except Rejected as reason:  # what was read of it before stays
            made.append(part._replace(reason=str(reason)))
        refused = [one for one in made if isinstance(one, FilePart)]
        if not made:
            raise Rejected(f"{part.path}: the file holds no text, and no part of a known kind")
        if len(refused) == len(made):
            more = f" (and {len(refused) - 1} parts more)" if len(refused) > 1 else ""
            raise Rejected(f"{refused[0].reason}{more}")
        return made

    def _outcome(
        self, made: Document | FilePart, path: str, depth: int
    ) -> list[Document | FilePart]:
        if not isinstance(made, FilePart):
            self._require_size(made)
            self._require_own_id(path, made)
            return [made]
        if not made.reason and suffix_of(made.path) not in SUFFIXES:
            return []  # as such a file is left out of a folder
        try:
            return self.read(made, depth + 1)
        except Rejected as reason:
            return [made._replace(reason=str(reason))]

    def _documents(self, part: FilePart) -> Iterator[Document | FilePart]:
        path, data, reason = part
        if reason:
            raise Rejected(reason)
        if (suffix := suffix_of(path)) not in SUFFIXES:
            raise Rejected(f"{path}: suffix {suffix!r} is not one of {', '.join(sorted(SUFFIXES))}")
        if data is None:
            raise Rejected(f"{path}: the file was too large or could not be read")
        try:
            if suffix in _ARCHIVES:
                yield from _ARCHIVES[suffix](path, data, self.budget)
            else:
                yield from _READERS[suffix](path, data)
        except SageError:
            raise
        except RecursionError as error:
            raise Rejected(f"{path}: is nested too deeply") from error
        except Exception as error:  # no library says what it raises at a broken file
            why = _ADDRESS.sub("", f"{type(error).__name__}: {error}")[:500]
            raise Rejected(f"{path}: cannot be read as {suffix}: {why}") from error

    def _require_own_id(self, path: str, made: Document) -> None:
        """Of two lines with one id the second would replace the first silently."""
        if (first := self.ids.setdefault(made["id"], path)) != path:
            raise Rejected(f"{path}: its id {made['id']!r} is that of {first} already")

    def _require_size(self, made: Document) -> None:
        if (size := len(made["text"].encode())) > self.text_bytes_max:
            raise Rejected(f"{made['id']}: {size} bytes of text; at most {self.text_bytes_max}")
