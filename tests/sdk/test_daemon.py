"""The SDK's in-cluster modes of the sandbox daemon, by the pod's address and by its Service's name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import daemon_checks
from conftest import sandbox_object
from eventually import PATIENCE
from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.async_sandbox_client import AsyncSandboxClient
from k8s_agent_sandbox.models import SandboxdInClusterConnectionConfig

BY_ADDRESS = SandboxdInClusterConnectionConfig(mode="in-cluster-pod-ip")


@pytest.fixture
def daemon():
    """A sandbox reached by its pod's address."""
    with SandboxClient(connection_config=BY_ADDRESS) as client:
        yield client.create_sandbox(warmpool="daemon")
        client.delete_all()


def test_commands_and_files_by_the_pods_address(daemon):
    daemon.files.write("sub/here", "")
    daemon_checks.commands(daemon)
    daemon_checks.files(daemon)


def test_many_commands_at_once(daemon):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        results = pool.map(lambda number: daemon.commands.run(f"echo {number}; exit {number}"), range(100))
        assert [(result.stdout, result.exit_code) for result in results] == [
            (f"{number}\n", number) for number in range(100)
        ]


async def test_the_asynchronous_client_does_the_same():
    async with AsyncSandboxClient(connection_config=BY_ADDRESS, cleanup=False) as client:
        sandbox = await client.create_sandbox(warmpool="daemon")
        try:
            await sandbox.files.write("sub/data", b"bytes \x00\xff")
            assert await sandbox.files.read("sub/data") == b"bytes \x00\xff"
            for path in (".", "/", "sub"):
                assert await sandbox.files.list(path)
            result = await sandbox.commands.run("echo $X; exit 4", env={"X": "y"}, cwd="sub")
            assert (result.stdout, result.exit_code) == ("y\n", 4)
            result = await sandbox.commands.run("sleep 600", command_timeout=1)
            assert result.timed_out
            await sandbox.files.delete("sub", recursive=True)
            assert not await sandbox.files.exists("sub")
        finally:
            await client.delete_all()


def test_commands_and_files_by_the_services_name(objects, tmp_path):
    """In a child with a hosts file of its own: names of the cluster are known inside it only."""
    with SandboxClient(connection_config=BY_ADDRESS) as client:
        try:
            sandbox = client.create_sandbox(warmpool="daemon")
            status = sandbox_object(objects, sandbox.sandbox_id)["status"]
            hosts = tmp_path / "hosts"
            hosts.write_text(f"127.0.0.1 localhost\n{status['podIPs'][0]} {status['serviceFQDN']}\n")
            script = Path(__file__).with_name("daemon_by_service.py")
            paths = os.pathsep.join(filter(None, sys.path))
            done = subprocess.run(
                [sys.executable, script, hosts, sandbox.claim_name],
                env={**os.environ, "PYTHONPATH": paths},
                timeout=PATIENCE * 2,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "by the name of the Service: commands, files" in done.stdout
        finally:
            client.delete_all()
