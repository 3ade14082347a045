"""CSV: one table, or a document a row where the header has a column ``text``."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice

from sage_connectors.documents.json_files import row_document
from sage_connectors.documents.parts import Document, FilePart, document, is_row
from sage_connectors.documents.tables import markdown_table
from sage_connectors.documents.text import decode

#: csv's own limit on a cell, 128 KiB, is less than a document may have.
CELL_CHARS_MAX = 64 << 20
_DELIMITERS = ",;\t|"
_ROWS_LOOKED_AT = 20
#: What a row that is a document has; its other columns are left out.
_OWN = ("id", "title", "text")


def csv_file(path: str, data: bytes) -> Iterator[Document | FilePart]:
    """A part for each row, counted from 1 behind the header; or one document with the table."""
    rows = _rows(decode(path, data))
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if is_row(path):
        yield row_document(path, dict(zip(names, rows[1], strict=True)) if rows[1:] else None)
    elif "text" not in names:
        yield document(path, "", markdown_table(rows) if rows else "")
    else:
        columns = {name: names.index(name) for name in _OWN if name in names}
        for number, row in enumerate(rows[1:], start=1):
            yield _row_part(f"{path}#{number}", columns, row, len(names))


def _row_part(path: str, columns: dict[str, int], row: Sequence[str], width: int) -> FilePart:
    if len(row) != width:
        reason = f"{path}: the row has {len(row)} fields, the header {width}"
        return FilePart(path, _csv_text([row]), reason)
    return FilePart(path, _csv_text([list(columns), [row[at] for at in columns.values()]]))


def _rows(text: str) -> list[list[str]]:
    """The rows that are not blank."""
    csv.field_size_limit(CELL_CHARS_MAX)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    return [row for row in rows if any(cell.strip() for cell in row)]


def _delimiter(text: str) -> str:
    """The one that gives the first rows the same number of fields, and most of them.

    Not csv.Sniffer: its regular expressions take minutes for some texts.
    """

    def fields(delimiter: str) -> int:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        counts = {len(row) for row in islice(rows, _ROWS_LOOKED_AT) if row}
        return counts.pop() if len(counts) == 1 else min(counts, default=0) - 1

    return max(_DELIMITERS, key=fields)


def _csv_text(rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
