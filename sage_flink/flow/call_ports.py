"""The protocols of a call: its spec, what of it the JVM can do, and the client of the pool."""

from collections.abc import AsyncIterator, Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from sage_flink.common.records import Record
from sage_flink.common.request_templates import RequestTemplate


@runtime_checkable
class CallSpec(Protocol):
    """A call to the model pool: its request, and the record made from its result; both pure.

    ``mode`` is ``post`` (the body is a whole JSON request) or ``embed`` (the body is one text;
    texts of many records are batched into one request, and the result is the vector as
    little-endian float32 bytes). A spec may have ``open(context)`` and ``close()``.
    """

    @property
    def mode(self) -> Literal["post", "embed"]: ...  # noqa: D102

    @property
    def path(self) -> str: ...  # noqa: D102

    @property
    def model(self) -> str: ...  # noqa: D102

    def request(self, record: Record) -> bytes:
        """The body to send. With an empty body no call is made and the record passes unchanged.

        Raises:
            Rejected: no request can be made from the record.
        """

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with its result, an upsert.

        Raises:
            Rejected: the body is not a result of this call.
        """


@runtime_checkable
class TemplateRequest(Protocol):
    """A call whose request is a template around fields of the record, so that the JVM can make it.

    ``request`` is that of the same class, and returns what the template renders.
    """

    @property
    def request_template(self) -> RequestTemplate: ...  # noqa: D102


@runtime_checkable
class CompletionAnswer(Protocol):
    """A call whose answer is a chat completion, so that the JVM can give it.

    The record's value becomes ``{**value, completion_field: text, "finish_reason", "usage"}``;
    ``answer`` is that of the same class.
    """

    @property
    def completion_field(self) -> str: ...  # noqa: D102


@runtime_checkable
class FieldAnswer(Protocol):
    """A call that embeds, whose whole answer is ``{**value, answer_field: vector}``.

    So the JVM can give it. A vector that is not of ``dim`` numbers is refused; 0 accepts any.
    """

    @property
    def answer_field(self) -> str: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102


class Reply(NamedTuple):
    """The response to one request; ``retry_after_s`` is 0 where the pool asked for no pause."""

    status: int
    body: bytes
    retry_after_s: float = 0.0


class Pool(Protocol):
    """The client of a model pool that speaks OpenAI's HTTP API."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply to one request; an HTTP error is a reply, not an exception.

        Raises:
            PoolTimeout: no reply in time.
            PoolAway: no connection was made, so no request was sent.
            PoolError: the connection broke.
        """

    def stream(self, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The body of one request as it arrives.

        Raises:
            PoolError: status >= 400 (``status`` and the body's message kept), or the connection
                broke.
        """
