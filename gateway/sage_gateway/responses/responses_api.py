"""Handler of ``/v1/responses``: a request becomes a chat, which is sent to the next handler."""

from sage_gateway.errors import GatewayError
from sage_gateway.openai.schema import ResponsesRequest
from sage_gateway.requests.request import Handler, Request, read_request
from sage_gateway.requests.response import Response, StreamingResponse
from sage_gateway.responses.chat_request import chat_body, response_field
from sage_gateway.responses.response_events import ResponseEvents
from sage_gateway.responses.response_object import ResponseObject

CHAT = "/v1/chat/completions"


class ResponsesApi:
    """Handler that turns responses into chats, and passes other requests on.

    Cache, idempotency and quota are those of the chat, which is what is charged.
    """

    def __init__(self, next_: Handler) -> None:
        self._next = next_

    async def handle(self, request: Request) -> Response | StreamingResponse:
        """The answer of the next handler, as a response where one was asked for.

        Raises:
            InvalidRequest: the request has no counterpart in a chat, or a field has a wrong type.
            GatewayError: as the next handler; ``param`` is the field of the response.
        """
        payload = request.payload
        if not isinstance(payload, ResponsesRequest):
            return await self._next.handle(request)
        fields = request.fields()
        body = chat_body(payload, fields)
        chat = read_request(CHAT, request.headers, body, key=request.key, tenant=request.tenant)
        if chat.invalid is not None:
            raise _as_response_error(chat.invalid)
        chat.log_id, chat.received_s = request.log_id, request.received_s
        chat.progress = request.progress
        request.tracked = True  # the chat is
        try:
            found = await self._next.handle(chat)
        except GatewayError as error:
            raise _as_response_error(error) from error
        response = ResponseObject(payload, fields)
        if isinstance(found, StreamingResponse):
            return _stream(found, response)
        return Response(found.status, response.of_chat(found.body), found.headers)


def _as_response_error(error: GatewayError) -> GatewayError:
    """A copy of the error, which a chat may share, that names the field of the response."""
    message, param = str(error), error.param or ""
    renamed = response_field(param)
    if param and message.startswith(f"{param}:"):
        message = renamed + message.removeprefix(param)
    return type(error)(
        message, code=error.code, param=renamed or None, retry_after_s=error.retry_after_s
    )


def _stream(chat: StreamingResponse, response: ResponseObject) -> StreamingResponse:
    events = ResponseEvents(response).of(chat)
    abandoned = False

    def abandon() -> None:
        nonlocal abandoned
        abandoned = True

    async def close() -> None:
        await events.aclose()
        await (chat.abandon() if abandoned else chat.close())

    return StreamingResponse(events, close, chat.headers, on_abandon=abandon)
