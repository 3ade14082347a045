"""markdownify, with the elements that it glues to their neighbours kept apart."""

from typing import Any

from markdownify import ATX, MarkdownConverter

_INLINE = "_inline"


class _Converter(MarkdownConverter):
    def process_text(self, el: Any, parent_tags: set[str] | None = None) -> str:
        """Code within a line keeps its blanks, as in ``pre``; its text stays one line."""
        if parent_tags and "_noformat" in parent_tags and "pre" not in parent_tags:
            return " ".join(str(el).splitlines())
        return str(super().process_text(el, parent_tags))  # type: ignore[misc]  # not in its stubs

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


CONVERTER = _Converter(
    heading_style=ATX,
    bullets="-",
    escape_asterisks=False,
    escape_underscores=False,
    escape_misc=False,
    table_infer_header=True,
    strip=["a", "b", "strong", "i", "em", "del", "s", "sub", "sup"],
)
