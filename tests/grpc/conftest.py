"""A router process in front of a gRPC server of grpcio and of a runtime, and a channel to it."""

import contextlib
import os
import queue
import re
import subprocess
import threading
from concurrent import futures
from pathlib import Path

import grpc
import pytest

import service
from eventually import PATIENCE

ROUTER = os.environ["AGENT_SANDBOX_ROUTER_BIN"]
RUNTIME = os.environ["AGENT_SANDBOX_RUNTIME_BIN"]
UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


@contextlib.contextmanager
def running(arguments, ready, **options):
    """A program, and what the pattern found in the line of its log that says it serves."""
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            line = lines.get(timeout=PATIENCE)
            assert line is not None, f"{arguments[0]} does not start"
            if found := re.search(ready, line):
                yield process, found.group(1)
                break
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def router():
    """The address of a router that knows the sandbox ns/box."""
    arguments = [
        ROUTER,
        "--authz-mode=allow-all",
        "--static-sandboxes=ns/box=127.0.0.1",
        "--http-bind-address=127.0.0.1:0",
        "--metrics-bind-address=",
        "--health-probe-bind-address=",
        "--upstream-max-retries=0",
        "--resolve-wait=0",
    ]
    with running(arguments, r"listening.*address=(\S+)") as (_, address):
        yield address


class Runtime:
    """A runtime in the place of a sandbox."""

    def __init__(self, address, root):
        self.address = address
        self.root = root
        self.route = (
            ("x-sandbox-id", "box"),
            ("x-sandbox-namespace", "ns"),
            ("x-sandbox-port", address.rsplit(":")[-1]),
        )

    def running(self):
        """How many programs that were started in its root still run and are called sleep."""
        count = 0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name = (process / "comm").read_text().strip()
                state = (process / "stat").read_text().rsplit(")")[-1].split()[0]
                if name == "sleep" and state != "Z" and (process / "cwd").resolve() == self.root:
                    count += 1
            except OSError:
                pass
        return count


@contextlib.contextmanager
def served(root, **environment):
    """A runtime with files at root."""
    root = root.resolve()
    arguments = [RUNTIME, "--address=127.0.0.1", "--port=0", f"--root-dir={root}"]
    with running(arguments, r"serving.*address=(\S+)", env={**os.environ, **environment}) as (_, address):
        yield Runtime(address, root)


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    with served(tmp_path_factory.mktemp("root")) as runtime:
        yield runtime


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    """A runtime that asks for a token."""
    with served(tmp_path_factory.mktemp("guarded"), AGENT_SANDBOX_RUNTIME_TOKEN="hush") as runtime:
        yield runtime


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
