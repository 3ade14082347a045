"""Files and batches as the OpenAI API returns them. Times are whole seconds since the epoch.

Source: OpenAI API reference, the file object, the batch object, the batch output object.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"]
#: OpenAI's, as far as files have a use here; a vector store takes those of `INDEXED`.
Purpose = Literal["batch", "batch_output", "assistants", "user_data", "vector_store"]
INDEXED: tuple[Purpose, ...] = ("assistants", "user_data", "vector_store")
#: What an upload may have.
UPLOADED: tuple[Purpose, ...] = ("batch", *INDEXED)


class ApiObject(BaseModel):
    """An object of OpenAI's API: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpiresAfter(ApiObject):
    """When a file expires: an hour to 30 days after its creation."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=30 * 86_400)


class FileObject(ApiObject):
    """An uploaded file, or an output file of a batch; without ``expires_at`` it stays."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"


class FileDeleted(ApiObject):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class Status(StrEnum):
    """The state of a batch; :mod:`sage_gateway.batches.state_machine` has the transitions."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class BatchError(ApiObject):
    """An error in one line of the input file; lines count from 1."""

    code: str
    line: int | None = None
    message: str
    param: str | None = None


class BatchErrors(ApiObject):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(ApiObject):
    """Requests by outcome; the ``failed`` ones are in the error file."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(ApiObject):
    """A file of requests and the progress through it.

    ``output_expires_after``: as the request had it; OpenAI's object does not show it.
    """

    id: str
    object: Literal["batch"] = "batch"
    endpoint: Endpoint
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Status = Status.VALIDATING
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None


Label = Annotated[str, Field(max_length=64)]
Value = Annotated[str, Field(max_length=512)]


class NewBatch(ApiObject):
    """The request for a new batch."""

    input_file_id: str = Field(max_length=64)
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: dict[Label, Value] | None = Field(default=None, max_length=16)
    output_expires_after: ExpiresAfter | None = None
