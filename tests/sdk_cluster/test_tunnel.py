"""The SDK's third way to the sandbox daemon: `kubectl port-forward` to the pod, through the API server."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import daemon_checks
from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.async_sandbox_client import AsyncSandboxClient
from k8s_agent_sandbox.models import SandboxdPodTunnelConnectionConfig

TUNNEL = SandboxdPodTunnelConnectionConfig(port_forward_ready_timeout=120)


@pytest.fixture
def sandbox():
    """A sandbox reached through the tunnel; sandbox and tunnel are gone when the test ends."""
    with SandboxClient(connection_config=TUNNEL) as client:
        yield client.create_sandbox(warmpool="warm")
        client.delete_all()


def test_commands_and_files(sandbox):
    sandbox.files.write("sub/here", "")
    daemon_checks.commands(sandbox)
    daemon_checks.files(sandbox)


def test_many_commands_at_once_share_the_tunnel(sandbox):
    with ThreadPoolExecutor(16) as pool:
        results = pool.map(lambda number: sandbox.commands.run(f"echo {number}; exit {number}"), range(100))
        assert [(result.stdout, result.exit_code) for result in results] == [
            (f"{number}\n", number) for number in range(100)
        ]


def test_another_tunnel_leads_to_the_same_sandbox(sandbox):
    sandbox.files.write("mine", "one")
    # Not to be closed as a context: that would delete what it found.
    same = SandboxClient(connection_config=TUNNEL).get_sandbox(sandbox.claim_name)
    try:
        assert same.files.read("mine") == b"one"
        same.files.write("mine", "two")
    finally:
        same.close_connection()
    assert sandbox.files.read("mine") == b"two"


async def test_the_asynchronous_client_does_the_same():
    async with AsyncSandboxClient(connection_config=TUNNEL, cleanup=False) as client:
        sandbox = await client.create_sandbox(warmpool="warm")
        try:
            await sandbox.files.write("sub/data", b"bytes \x00\xff")
            assert await sandbox.files.read("sub/data") == b"bytes \x00\xff"
            result = await sandbox.commands.run("echo $X; exit 4", env={"X": "y"}, cwd="sub")
            assert (result.stdout, result.exit_code) == ("y\n", 4)
            await sandbox.files.delete("sub", recursive=True)
            assert not await sandbox.files.exists("sub")
        finally:
            await client.delete_all()
