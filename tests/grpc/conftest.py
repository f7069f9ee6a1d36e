"""A router process in front of a gRPC server of grpcio, and a channel to it."""

import os
import queue
import re
import subprocess
import threading
from concurrent import futures

import grpc
import pytest

import service
from eventually import PATIENCE

ROUTER = os.environ["AGENT_SANDBOX_ROUTER_BIN"]
UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


@pytest.fixture(scope="session")
def router():
    """The address of a router that knows the sandbox ns/box."""
    process = subprocess.Popen(
        [
            ROUTER,
            "--authz-mode=allow-all",
            "--static-sandboxes=ns/box=127.0.0.1",
            "--http-bind-address=127.0.0.1:0",
            "--metrics-bind-address=",
            "--health-probe-bind-address=",
            "--upstream-max-retries=0",
            "--resolve-wait=0",
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = queue.Queue()

    def read():
        for line in process.stderr:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            line = lines.get(timeout=PATIENCE)
            assert line is not None, "the router does not start"
            if found := re.search(r"listening.*address=(\S+)", line):
                yield found.group(1)
                break
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server():
    """A gRPC server in the place of a sandbox; its port is `port`."""
    pool = futures.ThreadPoolExecutor(max_workers=300)
    server = grpc.server(pool, options=UNLIMITED)
    played = service.Service()
    server.add_generic_rpc_handlers((played.handlers(),))
    played.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield played
    server.stop(grace=None).wait()


@pytest.fixture(scope="session")
def channel(router):
    """A stock channel to the router."""
    with grpc.insecure_channel(router, options=UNLIMITED) as channel:
        yield channel


@pytest.fixture
def route(server):
    """The metadata that leads to the server."""
    return (
        ("x-sandbox-id", "box"),
        ("x-sandbox-namespace", "ns"),
        ("x-sandbox-port", str(server.port)),
    )
