"""Word: mammoth makes HTML of it (headings, nested lists, tables, footnotes), and that markdown."""

import io
from collections.abc import Iterator

from sage_connectors.documents.html import to_markdown
from sage_connectors.documents.markdown import first_heading
from sage_connectors.documents.packages import core_title, open_package
from sage_connectors.documents.parts import Document, document, missing_package

#: mammoth takes up to 85 bytes of memory, and 3 microseconds, for each byte.
_XML_BYTES_MAX = 16 << 20
_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='macro'] => pre:separator('\\n')
"""


def docx(path: str, data: bytes) -> Iterator[Document]:
    """One document; its title is that of the properties, or the first heading."""
    try:
        import mammoth
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    with open_package(path, data, xml_bytes_max=_XML_BYTES_MAX) as package:
        title = core_title(package)
    # Of a picture only the words that describe it are kept, not its bytes.
    without_bytes = mammoth.images.img_element(lambda image: {"src": ""})
    page = mammoth.convert_to_html(
        io.BytesIO(data), style_map=_STYLES, convert_image=without_bytes
    ).value
    text = to_markdown(path, page)[1]
    yield document(path, title or first_heading(text), text)
