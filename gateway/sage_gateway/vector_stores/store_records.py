"""Vector stores and files with what their owner alone knows, and the changes of rows to make."""

from dataclasses import dataclass

from sage_gateway.vector_stores.schema import Attributes, VectorStoreFile, VectorStoreObject


@dataclass(frozen=True, slots=True)
class OwnedStore:
    """A vector store with its tenant, and the embedding model of its rows."""

    tenant: str
    model: str
    dim: int
    store: VectorStoreObject


@dataclass(frozen=True, slots=True)
class OwnedFile:
    """A file of a vector store with its tenant and the id of the API key that pays for it.

    ``version``: of its rows; a file that is attached again has another one, and the files of a
    batch have the batch's id. ``expires_at``: when the uploaded file expires.
    """

    tenant: str
    key: str
    version: str
    expires_at: int | None
    file: VectorStoreFile


@dataclass(frozen=True, slots=True)
class PendingDelete:
    """Rows to delete: those of ``file`` except one version; without a file those of the store."""

    seq: int
    store: str
    dim: int
    file: str
    kept_version: str


@dataclass(frozen=True, slots=True)
class PendingAttributes:
    """The attributes that the rows of a version of a file are to have."""

    seq: int
    store: str
    dim: int
    file: str
    version: str
    attributes: Attributes
