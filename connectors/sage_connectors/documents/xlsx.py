"""Excel: a section with a table for each visible sheet."""

import datetime
import io
import warnings
from collections.abc import Iterator
from typing import Any

from sage_connectors.documents.packages import core_title, open_package
from sage_connectors.documents.parts import Document, document, missing_package
from sage_connectors.documents.tables import markdown_table
from sage_flink.common.errors import Rejected

#: Cells of all sheets, blank ones in a row counted: some seconds of reading.
CELLS_MAX = 500_000
#: Excel's own limit. The library makes up the rows that a file leaves out.
ROWS_MAX = 1 << 20


def xlsx(path: str, data: bytes) -> Iterator[Document]:
    """One document with the values that Excel last computed; its title is of the properties."""
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    with open_package(path, data) as package:
        title = core_title(package)
    with warnings.catch_warnings():  # of what it does not read, such as rules for input
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        left, sections = CELLS_MAX, []
        for sheet in book.worksheets:
            if sheet.sheet_state == "visible":
                rows = list(_rows(path, sheet, left))
                left -= sum(map(len, rows))
                sections += [f"## {sheet.title}\n\n{markdown_table(rows)}"] if rows else []
    yield document(path, title, "\n\n".join(sections))


def _rows(path: str, sheet: Any, cells_left: int) -> Iterator[list[str]]:
    """The rows that are not blank, without the blank cells at their end."""
    sheet.reset_dimensions()  # what a file declares may be a million rows more than it has
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells_left -= len(row)
        if cells_left < 0 or number > ROWS_MAX:
            raise Rejected(
                f"{path}: has more than {CELLS_MAX} cells, or {ROWS_MAX} rows in a sheet"
            )
        cells = [_text(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield cells


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return "" if value is None else str(value).strip()
