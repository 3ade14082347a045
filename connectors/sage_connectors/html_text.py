"""HTML as markdown: headings, lists, tables and code keep their form, the rest is plain text."""

import re
from typing import Any

import bs4
from markdownify import ATX, MarkdownConverter

#: Elements without text for a reader.
_UNREAD = ["script", "style", "template", "noscript", "title"]
_INLINE = "_inline"
_TRAILING = re.compile(r"[ \t]+$", re.M)


class _Converter(MarkdownConverter):
    """markdownify, with the elements that it glues to their neighbours."""

    def convert_img(self, el: Any, text: str, parent_tags: set[str]) -> str:
        alt = " ".join(str(el.attrs.get("alt") or "").split())
        return f" {alt} " if alt else ""

    def convert_block(self, el: Any, text: str, parent_tags: set[str]) -> str:
        text = text.strip()
        if not text:
            return ""
        return f" {text} " if _INLINE in parent_tags else f"\n\n{text}\n\n"

    convert_button = convert_details = convert_dialog = convert_fieldset = convert_block
    convert_label = convert_legend = convert_option = convert_summary = convert_block


_CONVERTER = _Converter(
    heading_style=ATX,
    bullets="-",
    escape_asterisks=False,
    escape_underscores=False,
    escape_misc=False,
    table_infer_header=True,
    strip=["a", "b", "strong", "i", "em", "del", "s", "sub", "sup"],
)


def to_markdown(page: str | bytes) -> tuple[str, str]:
    """The title of an HTML page, empty without one, and its text as markdown.

    Raises:
        RecursionError: its elements are nested too deeply.
    """
    if isinstance(page, bytes):  # lxml does not know all names of encodings
        page = bs4.UnicodeDammit(page, is_html=True).unicode_markup or page
    soup = bs4.BeautifulSoup(page, "lxml")
    title = " ".join(soup.title.get_text(" ").split()) if soup.title else ""
    for tag in soup(_UNREAD):
        tag.decompose()
    for tag in soup("textarea"):
        tag.name = "pre"  # its lines are kept
    text = str(_CONVERTER.convert_soup(soup))
    return title, _TRAILING.sub("", text).strip()
