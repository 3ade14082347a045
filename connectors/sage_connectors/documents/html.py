"""HTML as markdown: headings, lists, tables and code keep their form, the rest is plain text."""

import re
import warnings
from collections.abc import Iterator

from sage_connectors.documents.parts import Document, document, missing_package
from sage_flink.common.errors import Rejected

#: Elements without text for a reader.
_UNREAD = ["script", "style", "template", "noscript", "title"]
_TRAILING = re.compile(r"[ \t]+$", re.M)


def html(path: str, data: bytes) -> Iterator[Document]:
    """One document, with the title of its head."""
    yield document(path, *to_markdown(path, data))


def to_markdown(path: str, page: str | bytes) -> tuple[str, str]:
    """The title of an HTML page, empty without one, and its text as markdown.

    Raises:
        Rejected: its elements are nested too deeply.
    """
    try:
        import bs4

        from sage_connectors.documents.html_converter import CONVERTER
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    with warnings.catch_warnings():  # bs4 suspects a file name or XML
        warnings.simplefilter("ignore", UserWarning)
        try:
            if isinstance(page, bytes):  # lxml does not know all names of encodings
                page = bs4.UnicodeDammit(page, is_html=True).unicode_markup or page
            soup = bs4.BeautifulSoup(page, "lxml")
            title = " ".join(soup.title.get_text(" ").split()) if soup.title else ""
            for tag in soup(_UNREAD):
                tag.decompose()
            for tag in soup("textarea"):
                tag.name = "pre"  # its lines are kept
            text = str(CONVERTER.convert_soup(soup))
        except RecursionError as error:
            raise Rejected(f"{path}: its elements are nested too deeply") from error
    return title, _TRAILING.sub("", text).strip()
