"""PDF: the text of its pages.

The order is that in which a page draws its text, which is the reading order of what word processors
and LaTeX make, columns included. Sorting by place would read the cells of tables in columns.
"""

from collections.abc import Iterator
from typing import Any

from sage_connectors.documents.parts import Document, document, missing_package
from sage_flink.common.errors import Rejected

#: Replaces a hyphen at the end of a line and the line's end; pdfium expands ligatures itself.
_BROKEN_WORD = "\ufffe"


def pdf(path: str, data: bytes) -> Iterator[Document]:
    """One document with the title of the metadata; opened with an empty password if encrypted."""
    try:
        import pypdfium2
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    try:
        with pypdfium2.PdfDocument(data) as file:
            # Half a pair of surrogates stays, and is marked in the document.
            ranges = (page.get_textpage().get_text_range(errors="surrogatepass") for page in file)
            pages, title = list(ranges), _title(file)
    except pypdfium2.PdfiumError as error:
        raise Rejected(f"{path}: not a readable PDF: {error}") from error
    text = "\n\n".join(pages).replace("\r\n", "\n").replace(_BROKEN_WORD, "")
    yield document(path, title, text)


def _title(file: Any) -> str:
    """The title of the metadata, whose UTF-16 may have half a pair of surrogates."""
    try:
        return str(file.get_metadata_value("Title"))
    except UnicodeDecodeError as error:
        return bytes(error.object).decode("utf-16-le", "surrogatepass")
