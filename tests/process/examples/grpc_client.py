"""A client by grpcio, driven by tests/process/examples/grpc.rs.

It reads one command a line and prints one line for each result.

    call METHOD            the status of a call, after it has ended
    begin METHOD           starts a call in a thread of its own; prints `begun METHOD`
    end                    waits for the calls that were begun; prints the status of each, in order
    health                 the status of the process in grpc.health.v1
    load                   calls Hello without a pause, by two threads, until `end`
"""

import sys
import threading
import time

import grpc

ADDRESSES = sys.argv[1]
NAME = b"\x0a\x05world"
METHOD = "/hello.Greeter/"
PATIENCE = 20

channel = grpc.insecure_channel(
    "ipv4:" + ADDRESSES,
    options=[
        ("grpc.enable_http_proxy", 0),
        # Otherwise it is the list of addresses, which is no authority.
        ("grpc.default_authority", "localhost"),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 300),
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ],
)


def say(*words):
    print(*words, flush=True)


def unary(path, message):
    return channel.unary_unary(path)(message, timeout=PATIENCE, wait_for_ready=False)


def status(call):
    """Runs a call to its end. Returns its status and the number of replies."""
    replies = 0
    try:
        for _ in call():
            replies += 1
    except grpc.RpcError as error:
        return f"{error.code().name} {replies}"
    return f"OK {replies}"


def named(method):
    if method == "Count":
        return lambda: channel.unary_stream(METHOD + method)(NAME, timeout=PATIENCE)
    return lambda: [unary(METHOD + method, NAME)]


begun = []
stopped = threading.Event()
counts = {"calls": 0, "failures": []}


def load():
    while not stopped.is_set():
        try:
            unary(METHOD + "Hello", NAME)
            counts["calls"] += 1
        except grpc.RpcError as error:
            counts["failures"].append(f"{error.code().name}: {error.details()}")
        time.sleep(0.002)


def run(words):
    if words[0] == "call":
        say(words[1], status(named(words[1])))
    elif words[0] == "begin":
        result = [words[1]]
        thread = threading.Thread(target=lambda: result.append(status(named(words[1]))))
        thread.start()
        begun.append((thread, result))
        say("begun", words[1])
    elif words[0] == "health":
        # The second byte of the reply is the status: 1 for SERVING, 2 for NOT_SERVING.
        say("health", unary("/grpc.health.v1.Health/Check", b"")[1])
    elif words[0] == "load":
        for _ in range(2):
            thread = threading.Thread(target=load)
            thread.start()
            begun.append((thread, None))
        say("begun load")
    elif words[0] == "end":
        stopped.set()
        for thread, result in begun:
            thread.join()
            if result:
                say(*result)
        if counts["calls"] or counts["failures"]:
            say("load", counts["calls"], *counts["failures"][:3])


for line in sys.stdin:
    run(line.split())
