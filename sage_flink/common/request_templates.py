"""Requests whose text is fixed except for fields of the record, so that Python and the JVM render
them alike; the Java twin is ``RequestTemplate``.

>>> from sage_flink.common.records import Record
>>> begin, end = TemplatePart("literal", "{"), TemplatePart("literal", "}")
>>> template = RequestTemplate((begin, TemplatePart("list", "ids"), end))
>>> template.render(Record("a", {"ids": [1, 2]}))
b'{[1,2]}'
"""

from collections.abc import Callable
from string import Formatter
from typing import Literal, NamedTuple

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.common.validation import require
from sage_flink.common.values import require_field, require_text

Kind = Literal["literal", "list", "string", "text"]


class TemplatePart(NamedTuple):
    """A part of a request: literal ``text``, or the field of that name.

    ``list`` is the JSON of a list that is not empty, ``string`` a text escaped as within a JSON
    string, ``text`` a text that is not blank, as it is.
    """

    kind: Kind
    text: str


class RequestTemplate(NamedTuple):
    """The parts of a request, in order."""

    parts: tuple[TemplatePart, ...]

    def render(self, record: Record) -> bytes:
        """The request of one record, UTF-8.

        Raises:
            Rejected: a field is missing, of another kind, or empty.
        """
        return b"".join(_RENDER[part.kind](record, part.text) for part in self.parts)


def _list(record: Record, name: str) -> bytes:
    found = require_field(record, name, list)
    if not found:
        raise Rejected(f"field {name!r} is empty")
    return msgspec.json.encode(found)


_RENDER: dict[Kind, Callable[[Record, str], bytes]] = {
    "literal": lambda _, text: text.encode(),
    "list": _list,
    "string": lambda record, name: msgspec.json.encode(require_field(record, name, str))[1:-1],
    "text": lambda record, name: require_text(record, name).encode(),
}


def prompt_parts(spec: str, prompt: str) -> tuple[TemplatePart, ...]:
    """The parts of ``prompt`` within a JSON string: ``{name}`` is a text field, ``{{`` a brace.

    >>> prompt_parts("chat", "Translate {text}")
    (TemplatePart(kind='literal', text='Translate '), TemplatePart(kind='string', text='text'))

    Raises:
        PipelineError: a brace is not closed, or holds something other than a name.
    """
    try:
        pieces = list(Formatter().parse(prompt))
    except ValueError:
        pieces = [("", "", "", None)]
    plain = all(
        name is None or (name.isidentifier() and not form and not cast)
        for _, name, form, cast in pieces
    )
    require(plain, spec, "prompt", "a text with fields as {name}, and {{ for a brace", prompt)
    parts: list[TemplatePart] = []
    for literal, name, *_ in pieces:
        if literal:
            parts.append(TemplatePart("literal", msgspec.json.encode(literal).decode()[1:-1]))
        if name is not None:
            parts.append(TemplatePart("string", name))
    return tuple(parts)
