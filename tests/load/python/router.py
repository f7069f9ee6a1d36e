"""A header-routed streaming proxy on the stack of the upstream Python router.

    router.py ADDRESS PORT NAMESPACE/NAME=HOST:PORT...

It does what the bench compares and nothing more: X-Sandbox-Namespace and X-Sandbox-ID select a sandbox,
Authorization is removed, X-Forwarded-For names the caller, bodies are streamed both ways.
"""

import sys
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
NOT_FORWARDED = HOP_BY_HOP | {"authorization", "host", "x-forwarded-for"}
CONNECTIONS = 1024


def application(sandboxes: dict[str, str]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI):
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def forward(request: Request, path: str):
        namespace = request.headers.get("x-sandbox-namespace", "default")
        target = sandboxes.get(f"{namespace}/{request.headers.get('x-sandbox-id', '')}")
        if target is None:
            return JSONResponse({"detail": "no such sandbox"}, status_code=404)
        headers = [
            (name, value) for name, value in request.headers.items() if name not in NOT_FORWARDED
        ]
        headers.append(("x-forwarded-for", request.client.host))
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        client: httpx.AsyncClient = request.app.state.client
        outgoing = client.build_request(
            request.method,
            httpx.URL(f"http://{target}/{path}", query=request.url.query.encode()),
            headers=headers,
            content=request.stream() if has_body else None,
        )
        answer = await client.send(outgoing, stream=True)

        async def body():
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            finally:
                await answer.aclose()

        kept = {
            name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP
        }
        return StreamingResponse(body(), status_code=answer.status_code, headers=kept)

    return app


def main() -> None:
    address, port, *rest = sys.argv[1:]
    sandboxes = dict(entry.split("=", 1) for entry in rest)
    uvicorn.run(
        application(sandboxes),
        host=address,
        port=int(port),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
    )


if __name__ == "__main__":
    main()
