"""A small endpoint that answers as the API of OpenAI does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    """The application on a free port; its URL."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def endpoint() -> web.Application:
    async def embeddings(request: web.Request) -> web.Response:
        body = await request.json()
        rows = [
            {"object": "embedding", "index": index, "embedding": "AACAPwAAAAA="}
            for index, _ in enumerate(body["input"])
        ]
        return web.json_response({"object": "list", "data": rows, "model": body["model"]})

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        said = body["messages"][-1]["content"]
        if not body.get("stream"):
            message = {"role": "assistant", "content": said}
            return web.json_response({"choices": [{"index": 0, "message": message}]})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for word in said.split():
            delta = web.json_response({"choices": [{"index": 0, "delta": {"content": word}}]}).body
            assert isinstance(delta, bytes)
            await answer.write(b"data: " + delta + b"\n\n")
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def not_found(request: web.Request) -> web.Response:
        message = {"error": {"message": f"no such path: {request.path}"}}
        return web.json_response(message, status=404)

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/{path:.*}", not_found)
    return app
