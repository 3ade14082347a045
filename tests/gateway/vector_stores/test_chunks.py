"""Chunks of files for vector stores: their size, their batches, and what refuses a file."""

import io
import json
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest
from row_collections import write_tokenizer

from sage_flink.common import Rejected
from sage_flink.operators import Chunk, chunk
from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.errors import GatewayError
from sage_gateway.openai.error_table import status_of
from sage_gateway.vector_stores.chunk_reader import chunk_lines
from sage_gateway.vector_stores.embedding_models import EmbeddingModel, split, windows
from sage_gateway.vector_stores.file_chunks import (
    BATCH_TEXTS,
    FileChunk,
    FileFailed,
    batches,
    require_success,
)
from sage_gateway.vector_stores.reader_limits import REFUSED
from sage_gateway.vector_stores.schema import AutoChunking, StaticChunking, Windows


def model_with(context_tokens: int, **more: Any) -> EmbeddingModel:
    fields = {"engine": "fake", "kind": "embedding", "dim": 4, "context_tokens": context_tokens}
    return EmbeddingModel("vectors", 4, ModelSpec.model_validate({**fields, **more}))


def static(tokens: int, overlap: int) -> StaticChunking:
    sizes = {"max_chunk_size_tokens": tokens, "chunk_overlap_tokens": overlap}
    return StaticChunking.model_validate({"type": "static", "static": sizes})


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chunk:
    """Splits into windows of four words, of which neighbours share one."""
    write_tokenizer(tmp_path)
    monkeypatch.setenv("SAGE_MODELS", str(tmp_path))
    return chunk(tokens_max=4, overlap=1, tokenizer=str(tmp_path / "minilm"))


@pytest.mark.parametrize(
    ("context_tokens", "expected"), [(8192, (800, 400)), (2048, (800, 400)), (256, (192, 96))]
)
def test_auto_is_openais_size_where_the_model_reads_so_much(
    context_tokens: int, expected: tuple[int, int]
) -> None:
    for chunking in (None, AutoChunking(type="auto")):
        found = windows(chunking, model_with(context_tokens))
        assert (found.max_chunk_size_tokens, found.chunk_overlap_tokens) == expected


def test_static_windows_are_those_of_the_request() -> None:
    found = windows(static(200, 100), model_with(256))

    assert found == Windows(max_chunk_size_tokens=200, chunk_overlap_tokens=100)


def test_a_window_that_the_model_would_cut_is_refused() -> None:
    with pytest.raises(GatewayError, match="must be at most 256, what 'vectors' reads") as caught:
        windows(static(257, 0), model_with(256))

    assert status_of(caught.value) == 400


@pytest.mark.parametrize(("tokens", "overlap"), [(99, 0), (4097, 0), (100, 51), (100, -1)])
def test_windows_beyond_openais_limits_are_refused(tokens: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="chunk"):
        static(tokens, overlap)


def test_the_tokenizer_is_that_of_the_models_weights(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tokenizer.json").write_text("{}")
    sizes = Windows(max_chunk_size_tokens=100, chunk_overlap_tokens=0)

    assert split(sizes, model_with(256, source="own").spec, tmp_path).tokenizer == "own"
    for source in (None, "absent", "https://example.com/v1"):
        assert split(sizes, model_with(256, source=source).spec, tmp_path).tokenizer == "minilm"
    assert split(sizes, None, tmp_path).tokenizer == "minilm"


def test_a_text_is_split_into_overlapping_windows(words: Chunk) -> None:
    lines = [json.loads(line) for line in chunk_lines("sea.txt", b"a b c d e f g", words)]

    assert lines == [{"title": "sea", "text": "a b c d"}, {"title": "sea", "text": "d e f g"}]


def test_every_document_of_an_archive_is_split(words: Chunk) -> None:
    archive = zipped(("one.txt", b"a b"), ("two.md", b"# Two\n\nc d"))
    texts = [json.loads(line)["text"] for line in chunk_lines("both.zip", archive, words)]

    assert texts[0] == "a b"
    assert "c d" in " ".join(texts[1:])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("sea.exe", b"MZ", "suffix '.exe' is not one of"),
        ("sea", b"text", "suffix '' is not one of"),
        ("sea.pdf", b"%PDF-1.4 broken", "sea.pdf: not a readable PDF"),
        ("sea.txt", b"", "holds no text"),
        ("sea.txt", b"\x00\x01\x02", "NUL"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    words: Chunk, name: str, data: bytes, reason: str
) -> None:
    with pytest.raises(Rejected, match=reason):
        list(chunk_lines(name, data, words))


def test_a_file_with_one_part_that_cannot_be_read_is_refused_as_a_whole(words: Chunk) -> None:
    archive = zipped(("good.txt", b"a b"), ("bad.pdf", b"no pdf"))

    with pytest.raises(Rejected, match=r"bad\.pdf"):
        list(chunk_lines("both.zip", archive, words))


def test_batches_are_the_same_for_the_same_lines() -> None:
    chunks = [{"title": "t", "text": f"text {n}"} for n in range(BATCH_TEXTS + 1)]
    chunks.append({"title": "t", "text": "x" * (1 << 20)})
    content = b"".join(json.dumps(one).encode() + b"\n" for one in chunks)

    found = [list(batches(io.BytesIO(content))) for _ in range(2)]

    assert found[0] == found[1]
    assert [len(batch) for batch in found[0]] == [BATCH_TEXTS, 1, 1]
    assert [one.text for batch in found[0] for one in batch] == [one["text"] for one in chunks]


def test_the_title_of_a_document_is_embedded_in_front_of_each_chunk() -> None:
    assert FileChunk("The sea", "It is deep.").embedding_text == "The sea\nIt is deep."
    assert len(FileChunk("t" * 5000, "It is deep.").embedding_text) < 250


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (REFUSED, "unsupported_file", "not here"),
        (1, "server_error", "exit code 1"),
        (-signal.SIGSEGV, "invalid_file", "exit code -11"),
        (-signal.SIGXCPU, "invalid_file", "more than 300 s"),
    ],
)
def test_a_reader_that_ends_early_says_why(code: int, error: str, message: str) -> None:
    output = io.BytesIO(b'{"code": "unsupported_file", "message": "not here"}\n')

    with pytest.raises(FileFailed, match=message) as caught:
        require_success(code, output)

    assert caught.value.reason.code == error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_reader_that_is_ended_by_others_is_not_the_fault_of_its_file(number: int) -> None:
    with pytest.raises(RuntimeError, match=f"signal {number:d}"):
        require_success(-number, io.BytesIO())

    require_success(0, io.BytesIO())


def zipped(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()
