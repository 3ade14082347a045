"""Vector stores and their files as the OpenAI API returns them, and the requests that make them.

Times are whole seconds since the epoch. Source: OpenAI API reference, the vector store object, the
vector store file object, the file batch object, and their ``chunking_strategy``.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from sage_gateway.batches.schema import ApiObject, Label, Value
from sage_gateway.config.pool_spec import whole

#: Of 64 bits: what a row of a collection can hold.
Whole = Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]
Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Text = Annotated[StrictStr, Field(max_length=512)]
Attributes = Annotated[dict[Label, Text | StrictBool | Whole | Number], Field(max_length=16)]
Metadata = Annotated[dict[Label, Value], Field(max_length=16)]
Name = Annotated[str, Field(max_length=256)]
FileId = Annotated[str, Field(max_length=64)]
ErrorCode = Literal["server_error", "unsupported_file", "invalid_file"]
DAY_S = 86_400
#: OpenAI's limit of a batch.
BATCH_FILES_MAX = 2_000


class Windows(ApiObject):
    """The size of a chunk and how much neighbours share, in tokens."""

    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class RequestedWindows(ApiObject):
    """The windows that a request may ask for; OpenAI's limits."""

    max_chunk_size_tokens: Annotated[int, Strict(), Field(ge=100, le=4096), BeforeValidator(whole)]
    chunk_overlap_tokens: Annotated[int, Strict(), Field(ge=0, le=2048), BeforeValidator(whole)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        half = self.max_chunk_size_tokens // 2
        if self.chunk_overlap_tokens > half:
            raise ValueError(f"chunk_overlap_tokens must be at most {half}, half a chunk")
        return self


class AutoChunking(ApiObject):
    """The embedding model decides how a file is split."""

    type: Literal["auto"]


class StaticChunking(ApiObject):
    """A file is split into windows of one size."""

    type: Literal["static"]
    static: RequestedWindows


Chunking = Annotated[AutoChunking | StaticChunking, Field(discriminator="type")]


class FileChunking(ApiObject):
    """How a file is split, also after a request for ``auto``."""

    type: Literal["static"] = "static"
    static: Windows


class NewVectorStoreFile(ApiObject):
    """The request to attach an uploaded file to a vector store."""

    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class IdleExpiry(ApiObject):
    """When a vector store is deleted: ``days`` after its last search or new file."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Strict(), Field(ge=1, le=365), BeforeValidator(whole)]


class NewVectorStore(ApiObject):
    """The request for a new vector store; ``chunking_strategy`` is that of its ``file_ids``."""

    name: Name | None = None
    description: Annotated[str, Field(max_length=512)] | None = None
    metadata: Metadata | None = None
    expires_after: IdleExpiry | None = None
    file_ids: list[FileId] = Field(default=[], max_length=500)
    chunking_strategy: Chunking | None = None


class VectorStoreChange(ApiObject):
    """The request to change a vector store: what is absent stays, what is null is cleared."""

    name: Name | None = None
    metadata: Metadata | None = None
    expires_after: IdleExpiry | None = None


class NewFileBatch(ApiObject):
    """The request to attach several files: ``file_ids``, or ``files`` with settings of their own.

    ``attributes`` and ``chunking_strategy`` are those of ``file_ids``, and ignored with ``files``.
    """

    file_ids: Annotated[list[FileId], Field(min_length=1, max_length=BATCH_FILES_MAX)] | None = None
    files: (
        Annotated[list[NewVectorStoreFile], Field(min_length=1, max_length=BATCH_FILES_MAX)] | None
    ) = None
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("give either file_ids or files")
        return self

    @property
    def new_files(self) -> list[NewVectorStoreFile]:
        """The files, each once; of a file that is named again the last settings count."""
        chunking = self.chunking_strategy
        files = [
            NewVectorStoreFile(file_id=id_, attributes=self.attributes, chunking_strategy=chunking)
            for id_ in self.file_ids or ()
        ]
        return list({file.file_id: file for file in self.files or files}.values())


class VectorStoreFileChange(ApiObject):
    """The request to replace the attributes of a file; null for none."""

    attributes: Attributes | None


class FileStatus(StrEnum):
    """The state of a file: in progress until it is completed, has failed or is cancelled."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"  # with its batch


class LastError(ApiObject):
    """Why a file has failed."""

    code: ErrorCode
    message: str


class VectorStoreFile(ApiObject):
    """A file of a vector store; ``usage_bytes`` counts its texts and vectors."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    usage_bytes: int = 0
    created_at: int
    vector_store_id: str
    status: FileStatus = FileStatus.IN_PROGRESS
    last_error: LastError | None = None
    chunking_strategy: FileChunking
    attributes: Attributes


class FileCounts(ApiObject):
    """The files of a vector store by status."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    total: int = 0


class VectorStoreFileBatch(ApiObject):
    """Files that were attached together; ``failed`` is a batch of which every file has failed.

    A file that is detached, or attached again, leaves the batch.
    """

    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: FileStatus
    file_counts: FileCounts


class TextContent(ApiObject):
    """A piece of the text of a file."""

    type: Literal["text"] = "text"
    text: str


class VectorStoreFileContent(ApiObject):
    """The text of a file, in the chunks in which it is found."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[TextContent]
    has_more: Literal[False] = False
    next_page: None = None


class VectorStoreObject(ApiObject):
    """A vector store; it is in progress while a file of it is."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int = 0
    file_counts: FileCounts = FileCounts()
    status: Literal["in_progress", "completed"] = "completed"
    expires_after: IdleExpiry | None
    expires_at: int | None = None
    last_active_at: int
    metadata: Metadata


class VectorStoreDeleted(ApiObject):
    """The answer to the deletion of a vector store."""

    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: bool = True


class VectorStoreFileDeleted(ApiObject):
    """The answer to the request to detach a file from a vector store."""

    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: bool = True
