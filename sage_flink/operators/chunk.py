"""Splitting: windows of tokens as the embedding model counts them.

A window never cuts a word. ``overlap`` tokens are in both neighbours, so that a sentence on the
border is whole in one of them.

A delete of the document's other versions follows its chunks. A new version may have fewer chunks,
or one of them may fail: the index then holds rows of this version alone, because no step lets the
delete overtake the rows before it (:mod:`sage_flink.flow.deletes`). Rescale a job only when no two
versions of a document are in flight: Flink redistributes records in flight over the subtasks.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sage_flink.common.errors import ConfigError
from sage_flink.common.records import Record, derived_id
from sage_flink.common.settings import Settings
from sage_flink.common.validation import require, require_name, require_whole_number
from sage_flink.common.values import require_field

#: Half of the limit and less, because a tokenizer may take a sign apart (Hangul: in three).
_LONG_RUN = re.compile(r"\S{101,}")
_PIECE = re.compile(r"\S{32}(?=\S)")


@dataclass(frozen=True, slots=True)
class Chunk:
    """``{"doc", "title", "text"}`` -> its chunks, then a delete of the document's other versions.

    A chunk is ``{"doc", "version", "title", "text", "ordinal", "tokens"}``, of at most
    ``tokens_max`` tokens of ``tokenizer``, which is a folder of the models' folder. ``version`` is
    a digest of the source record's place, the text and these settings: the same on every replay,
    another for a file that changed in its place or a split that changed.
    """

    emits_deletes: ClassVar[bool] = True

    tokens_max: int
    overlap: int
    tokenizer: str = "minilm"

    def __post_init__(self) -> None:
        require_name("chunk", "tokenizer", self.tokenizer)
        require_whole_number("chunk", "tokens_max", self.tokens_max)
        require_whole_number("chunk", "overlap", self.overlap, least=0)
        half = self.tokens_max // 2
        require(
            self.overlap <= half, "chunk", "overlap", f"at most {half}, half a window", self.overlap
        )

    def __call__(self, record: Record) -> Iterable[dict[str, Any] | Record]:
        """The chunks, in the order of the text, then the delete.

        Raises:
            Rejected: ``doc``, ``title`` or ``text`` is missing or not a text.
        """
        doc, title, whole = (require_field(record, name, str) for name in ("doc", "title", "text"))
        whole = with_breaks(whole)
        encoding = _tokenizer(self.tokenizer).encode(whole, add_special_tokens=False)
        spans = windows(encoding.word_ids, encoding.offsets, self.tokens_max, self.overlap)
        version = self._version(record.origin, title, whole)
        for ordinal, (start, end, tokens) in enumerate(spans):
            yield {
                "doc": doc,
                "version": version,
                "title": title,
                "text": whole[start:end],
                "ordinal": ordinal,
                "tokens": tokens,
            }
        # An id apart from those of chunks, whatever step this is.
        yield record.delete_of(doc, version=version, id=derived_id(record.id, "removal", 0))

    def _version(self, *of: str) -> str:
        settings = f"{self.tokenizer}/{self.tokens_max}/{self.overlap}"
        return derived_id("\x00".join(of), settings, 0)


def chunk(*, tokens_max: int, overlap: int, tokenizer: str = "minilm") -> Chunk:
    """A step function that splits ``value["text"]`` into windows of at most ``tokens_max`` tokens.

    Raises:
        PipelineError: ``overlap`` is not between 0 and half of ``tokens_max``.
    """
    return Chunk(tokens_max, overlap, tokenizer)


def with_breaks(text: str) -> str:
    """``text`` with a blank after every 32 signs of a run that is too long to be a word.

    A tokenizer of words takes more than 100 signs without a blank for one unknown word: a page of
    Thai, of DNA or of base64 would be a single token, with the same vector as any other such page.

    >>> [len(word) for word in with_breaks("short " + "x" * 120).split(" ")]
    [5, 32, 32, 32, 24]
    """
    return _LONG_RUN.sub(lambda run: _PIECE.sub(r"\g<0> ", run[0]), text)


def windows(
    words: list[int | None], offsets: list[tuple[int, int]], tokens_max: int, overlap: int
) -> Iterator[tuple[int, int, int]]:
    """(start, end, tokens) of each window, in characters of the text.

    A window ends before the word that does not fit; only a word longer than a window is cut.
    """
    start, count = 0, len(offsets)
    while start < count:
        end = min(start + tokens_max, count)
        if end < count:
            end = _word_start(words, end, floor=start + tokens_max // 2)
        yield offsets[start][0], offsets[end - 1][1], end - start
        if end == count:
            return
        start = _restart(words, start, end, overlap)


def _restart(words: list[int | None], start: int, end: int, overlap: int) -> int:
    """The start of the word that holds the overlap's first token, or of a later one."""
    at = max(end - overlap, start + 1)
    back = _word_start(words, at, floor=start)
    if back != at or not _within(words, at):
        return back
    return next((ahead for ahead in range(at + 1, end) if not _within(words, ahead)), at)


def _word_start(words: list[int | None], at: int, floor: int) -> int:
    """Where the word at ``at`` starts; ``at`` itself when that is not after ``floor``."""
    back = at
    while back > floor and _within(words, back):
        back -= 1
    return back if back > floor else at


def _within(words: list[int | None], at: int) -> bool:
    return words[at] is not None and words[at] == words[at - 1]


@functools.cache
def _tokenizer(name: str) -> Any:
    from tokenizers import Tokenizer

    path: Path = Settings.load().models / name / "tokenizer.json"
    if not path.exists():
        raise ConfigError(f"tokenizer {name!r} is missing ({path}); run `bash infra/setup.sh`")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()  # shipped with truncation 128 and padding to 128
    tokenizer.no_padding()
    return tokenizer
