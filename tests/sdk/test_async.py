"""The same jobs with the asynchronous client."""

import asyncio
import io
from datetime import UTC, datetime

import pytest

from conftest import TIME_LIMITS, advance_shutdown, claim
from eventually import eventually
from k8s_agent_sandbox.exceptions import (
    SandboxNotFoundError,
    SandboxRequestError,
    SandboxTemplateNotFoundError,
    SandboxWarmPoolNotFoundError,
)


async def test_commands(async_sandbox):
    result = await async_sandbox.commands.run("sh -c 'echo out; echo err >&2; exit 3'")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
    for limit in TIME_LIMITS:
        result = await async_sandbox.commands.run("sh -c 'echo partial; sleep 600'", command_timeout=limit)
        assert result.timed_out
        if result.stdout:
            break
    assert result.stdout == "partial\n"


class Collector:
    """What the asynchronous client downloads into: its `write` is awaited."""

    def __init__(self):
        self.content = b""

    async def write(self, content):
        self.content += content
        return len(content)


async def test_files(async_sandbox):
    files = async_sandbox.files
    await files.write("a/text.txt", "text")
    await files.write("a/bytes.bin", b"\x00\xff")
    await files.write("/a/stream.bin", io.BytesIO(b"z" * 200_000))
    assert await files.read("a/text.txt") == b"text"
    assert await files.read("/a/bytes.bin") == b"\x00\xff"
    target = Collector()
    await files.read_to("a/stream.bin", target)
    assert target.content == b"z" * 200_000
    names = {entry.name for entry in await files.list("a")}
    assert names == {"text.txt", "bytes.bin", "stream.bin"}
    assert "a" in [entry.name for entry in await files.list(".")]
    assert await files.exists("a/text.txt") and not await files.exists("a/absent")
    with pytest.raises(SandboxRequestError) as error:
        await files.read("absent.txt")
    assert error.value.status_code == 404


async def test_many_at_once(async_client):
    sandboxes = await asyncio.gather(*(async_client.create_sandbox(warmpool="warm") for _ in range(6)))
    assert len({sandbox.sandbox_id for sandbox in sandboxes}) == 6
    results = await asyncio.gather(
        *(sandbox.commands.run(f"echo {number}") for number, sandbox in enumerate(sandboxes))
    )
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(6)]


async def test_lifecycle(async_client, objects):
    sandbox = await async_client.create_sandbox(warmpool="warm", labels={"team": "async"})
    assert await async_client.get_sandbox(sandbox.claim_name) is sandbox
    assert ("default", sandbox.claim_name) in await async_client.list_active_sandboxes()
    assert await async_client.list_all_sandboxes(label_selector="team=async") == [sandbox.claim_name]
    assert (await sandbox.status())[0] == "SandboxReady"
    name = sandbox.claim_name  # the handle forgets it
    await async_client.delete_sandbox(name)
    assert await async_client.list_active_sandboxes() == []
    await asyncio.to_thread(eventually, lambda: claim(objects, name) is None)


async def test_shutdown_after_seconds(async_client, objects):
    asked = datetime.now(UTC)
    sandbox = await async_client.create_sandbox(warmpool="warm", shutdown_after_seconds=3600)
    await asyncio.to_thread(advance_shutdown, objects, sandbox.claim_name, asked)
    await asyncio.to_thread(eventually, lambda: claim(objects, sandbox.claim_name) is None)


async def test_failures_are_the_documented_ones(async_client):
    with pytest.raises(SandboxWarmPoolNotFoundError):
        await async_client.create_sandbox(warmpool="no-such-pool")
    with pytest.raises(SandboxTemplateNotFoundError):
        await async_client.create_sandbox(warmpool="orphaned")
    with pytest.raises(SandboxNotFoundError):
        await async_client.get_sandbox("no-such-claim", resolve_timeout=1)
