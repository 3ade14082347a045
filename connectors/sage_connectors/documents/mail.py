"""Mail: headers and body are a document, each attachment of a known kind is a part."""

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from pathlib import PurePosixPath

from sage_connectors.documents.html import to_markdown
from sage_connectors.documents.parts import Document, FilePart, clean, document
from sage_connectors.documents.text import decode
from sage_flink.common.errors import Rejected

_HEADERS = ("From", "To", "Cc", "Date")
#: What an attachment without a name is read as.
_SUFFIXES = {
    "message/rfc822": ".eml",
    "text/plain": ".txt",
    "text/html": ".html",
    "text/csv": ".csv",
    "application/pdf": ".pdf",
    "application/json": ".json",
}


def mail(path: str, data: bytes) -> Iterator[Document | FilePart]:
    """The mail, titled by its subject, then its attachments as ``mail.eml!name``.

    The body is the HTML one where there is one: it has the tables and lists that people see.
    """
    message = message_from_bytes(data, policy=policy.default)
    if not message.keys():
        raise Rejected(f"{path}: not a mail: it has no header")
    headers = [f"{name}: {value}" for name in _HEADERS if (value := message.get(name))]
    body = _body(path, message)
    if body or not any(message.iter_attachments()):
        text = "\n".join(headers) + f"\n\n{body}" if body else ""
        yield document(path, message.get("Subject"), text)
    yield from _attachments(path, message)


def _body(path: str, message: EmailMessage) -> str:
    part = message.get_body(("html", "plain"))
    if part is None:
        return ""
    raw = _content(part)
    try:
        content = raw.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):  # an unknown encoding, or not that one
        content = decode(path, raw)
    if part.get_content_type() == "text/html":
        return to_markdown(path, content)[1]
    return content.replace("\r\n", "\n").strip()


def _attachments(path: str, message: EmailMessage) -> Iterator[FilePart]:
    names: set[str] = set()
    for number, part in enumerate(message.iter_attachments(), start=1):
        name = _name(part, number)
        if name in names:  # two attachments of one name are common
            name = f"{PurePosixPath(name).stem}-{number}{PurePosixPath(name).suffix}"
        names.add(name)
        yield FilePart(f"{path}!{name}", _content(part))


def _name(part: MIMEPart, number: int) -> str:
    named = clean(part.get_filename() or "").replace("\\", "/").rsplit("/", 1)[-1].strip()
    return named or f"attachment-{number}{_SUFFIXES.get(part.get_content_type(), '')}"


def _content(part: MIMEPart) -> bytes:
    if part.get_content_type() == "message/rfc822":
        return bytes(part.get_content().as_bytes())
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
