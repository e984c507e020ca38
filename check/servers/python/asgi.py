"""An ASGI application without a framework, for uvicorn and hypercorn."""

import asyncio
from urllib.parse import parse_qs

CHUNK = b"x" * 65536


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await websocket(receive, send)
    query = parse_qs(scope["query_string"].decode())

    def number(name):
        return int(query.get(name, ["0"])[0])

    route = (scope["method"], scope["path"])
    if route == ("GET", "/"):
        await respond(send, 200, b"hello world")
    elif route == ("GET", "/slow"):
        await asyncio.sleep(number("ms") / 1000)
        await respond(send, 200, b"slow")
    elif route == ("POST", "/echo"):
        await echo(receive, send)
    elif route == ("GET", "/stream"):
        await head(send, 200, [])
        for _ in range(0, number("ms"), 50):
            await asyncio.sleep(0.05)
            await send({"type": "http.response.body", "body": b"piece\n", "more_body": True})
        await send({"type": "http.response.body"})
    elif route == ("GET", "/big"):
        await big(send, number("bytes"))
    else:
        await respond(send, 404, b"not found")


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def head(send, status, fields):
    await send({"type": "http.response.start", "status": status, "headers": fields})


async def respond(send, status, body):
    await head(send, status, [(b"content-length", str(len(body)).encode())])
    await send({"type": "http.response.body", "body": body})


async def echo(receive, send):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            return await respond(send, 200, body)


async def big(send, length):
    await head(send, 200, [(b"content-length", str(length).encode())])
    while length > 0:
        chunk = CHUNK[:length]
        length -= len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})
