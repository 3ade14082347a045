"""The embedding model of a vector store, and how it decides the size of chunks.

``auto`` is OpenAI's 800 tokens, of which neighbours share 400; for a model that reads fewer it is
three quarters of what it reads, which leaves room for the title, and neighbours share half of that.
A window larger than the model's context is refused: the model would not see the end of a chunk.
"""

from dataclasses import dataclass
from pathlib import Path

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.controlplane.pool import Pool
from sage_gateway.errors import InvalidRequest, NoReplica
from sage_gateway.vector_stores.file_chunks import Split
from sage_gateway.vector_stores.schema import Chunking, StaticChunking, Windows

AUTO_TOKENS = 800
#: For a model whose own tokenizer is not among the models, such as a remote one.
TOKENIZER = "minilm"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model of the pool, and the size of its vectors."""

    name: str
    dim: int
    spec: ModelSpec


def embedding_model(pool: Pool, name: str) -> EmbeddingModel:
    """The embedding model of that name or alias.

    Raises:
        NoReplica: the pool does not have it.
    """
    model = pool.find(name)
    if model is None or model.spec.dim is None:
        message = f"{name!r} is no embedding model with a dim in pool.yaml"
        raise NoReplica(message, retry_after_s=30)
    return EmbeddingModel(model.name, model.spec.dim, model.spec)


def windows(chunking: Chunking | None, model: EmbeddingModel) -> Windows:
    """The windows that a request asks for.

    Raises:
        InvalidRequest: they are larger than the model's context.
    """
    context = model.spec.context_tokens
    if not isinstance(chunking, StaticChunking):
        tokens = min(AUTO_TOKENS, context * 3 // 4)
        return Windows(max_chunk_size_tokens=tokens, chunk_overlap_tokens=tokens // 2)
    asked = chunking.static
    if asked.max_chunk_size_tokens > context:
        field = "chunking_strategy.static.max_chunk_size_tokens"
        got = asked.max_chunk_size_tokens
        message = f"{field} must be at most {context}, what {model.name!r} reads, got {got}"
        raise InvalidRequest(message, code="invalid_chunking_strategy", param=field)
    return Windows(**asked.model_dump())


def split(chunks: Windows, spec: ModelSpec | None, models: Path) -> Split:
    """The split into windows, by the tokenizer in the folder of the model's weights."""
    source = spec.source if spec else None
    own = source is not None and (models / source / "tokenizer.json").is_file()
    tokenizer = source if source and own else TOKENIZER
    return Split(chunks.max_chunk_size_tokens, chunks.chunk_overlap_tokens, tokenizer, models)
