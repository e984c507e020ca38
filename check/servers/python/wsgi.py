"""A WSGI application without a framework, for gunicorn. WSGI has no upgrade."""

import time
from urllib.parse import parse_qs

CHUNK = b"x" * 65536


def app(environ, start_response):
    query = parse_qs(environ.get("QUERY_STRING", ""))

    def number(name):
        return int(query.get(name, ["0"])[0])

    route = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
    if route == ("GET", "/"):
        return respond(start_response, b"hello world")
    if route == ("GET", "/slow"):
        time.sleep(number("ms") / 1000)
        return respond(start_response, b"slow")
    if route == ("POST", "/echo"):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        return respond(start_response, environ["wsgi.input"].read(length))
    if route == ("GET", "/stream"):
        start_response("200 OK", [])
        return pieces(number("ms"))
    if route == ("GET", "/big"):
        length = number("bytes")
        start_response("200 OK", [("Content-Length", str(length))])
        return chunks(length)
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


def respond(start_response, body):
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def pieces(ms):
    for _ in range(0, ms, 50):
        time.sleep(0.05)
        yield b"piece\n"


def chunks(length):
    while length > 0:
        chunk = CHUNK[:length]
        length -= len(chunk)
        yield chunk
