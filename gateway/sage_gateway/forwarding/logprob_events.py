"""The events of an engine whose log probabilities have another form than the route's."""

from typing import Any

import orjson

from sage_gateway.forwarding.remote_events import Content
from sage_gateway.openai.logprobs import LogprobForm

LINE_BYTES_MAX = 8 << 20
_DATA = b"data:"


class LogprobEvents:
    """Reads ``content`` in whole lines; the log probabilities in its events have the ``form``."""

    def __init__(self, content: Content, form: LogprobForm) -> None:
        self._content = content
        self._form = form
        self._line = b""
        self._lengths: dict[int, int] = {}  # of the text of each choice so far, in characters

    async def readany(self) -> bytes:
        """The bytes of whole lines, at least one line; empty at the end."""
        while chunk := await self._content.readany():
            *lines, self._line = (self._line + chunk).split(b"\n")
            if lines:
                return b"".join(self._convert_line(line) + b"\n" for line in lines)
            if len(self._line) > LINE_BYTES_MAX:  # the reader has the same limit
                break
        line, self._line = self._line, b""
        return line

    def _convert_line(self, line: bytes) -> bytes:
        if not line.startswith(_DATA) or b'"logprobs"' not in line:
            return line
        try:
            event = orjson.loads(line.removeprefix(_DATA))
            for choice in event.get("choices") or ():
                self._convert(choice)
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            return line
        return b"data: " + orjson.dumps(event)

    def _convert(self, choice: dict[str, Any]) -> None:
        index = choice.get("index", 0)
        offset = self._lengths.get(index, 0)
        self._lengths[index] = offset + len(choice.get("text") or "")
        if choice.get("logprobs") is not None:
            choice["logprobs"] = self._form.convert(choice["logprobs"], offset)
