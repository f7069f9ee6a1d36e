"""What commands and files do in the modes in which the SDK speaks to the runtime as to the sandbox daemon: REST for
files, gRPC for commands. Every way to reach it is held to the same."""

import pytest

from k8s_agent_sandbox.exceptions import SandboxRequestError


def commands(sandbox):
    result = sandbox.commands.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
    assert not result.timed_out
    result = sandbox.commands.run("echo $A-$B | tr a-z A-Z; pwd", env={"A": "one", "B": "two"}, cwd="sub")
    first, second = result.stdout.splitlines()
    assert first == "ONE-TWO" and second.endswith("/sub")
    # A shell's way to say it was a signal.
    assert sandbox.commands.run("kill -9 $$").exit_code == 137
    # What stays in the background neither delays nor fails the answer.
    result = sandbox.commands.run("echo hi; sleep 600 &", timeout=60)
    assert (result.stdout, result.exit_code) == ("hi\n", 0)
    result = sandbox.commands.run("sleep 600", command_timeout=1)
    assert result.timed_out and result.exit_code == 124
    # More than the library of the client would receive: the ends are kept.
    result = sandbox.commands.run("echo begin; head -c 6000000 /dev/zero | tr '\\0' x; echo end")
    assert result.exit_code == 0
    assert result.stdout.startswith("begin\nxxx") and result.stdout.endswith("xxxend\n")
    assert "bytes omitted" in result.stdout and len(result.stdout) < 4 * 1024 * 1024
    with pytest.raises(RuntimeError):
        sandbox.commands.run("true", cwd="../..")
    with pytest.raises(RuntimeError):
        sandbox.commands.run("true", cwd="no-such-directory")


def files(sandbox):
    content = bytes(range(256)) * 4000
    sandbox.files.write("sub/deep/data.bin", content)
    assert sandbox.files.read("sub/deep/data.bin") == content
    assert sandbox.files.read("/sub/deep/data.bin") == content
    sandbox.files.write("text.txt", "grüße, 世界")
    assert sandbox.commands.run("cat text.txt").stdout == "grüße, 世界"
    sandbox.commands.run("printf run > from-command.txt; chmod 600 from-command.txt")
    for path in (".", "", "/"):
        entries = {entry.name: entry for entry in sandbox.files.list(path)}
        assert entries["sub"].type == "directory"
        assert (entries["from-command.txt"].size, entries["from-command.txt"].mode) == (3, "0600")
    assert [entry.name for entry in sandbox.files.list("/sub/deep/")] == ["data.bin"]
    name = "with space & per%20cent #?.txt"
    sandbox.files.write(name, name)
    assert sandbox.files.read(name) == name.encode()
    assert sandbox.files.exists(name) and not sandbox.files.exists("nothing")
    sandbox.files.delete(name)
    assert not sandbox.files.exists(name)
    with pytest.raises(SandboxRequestError) as raised:
        sandbox.files.delete("sub")
    assert raised.value.status_code == 409
    sandbox.files.delete("sub", recursive=True)
    assert not sandbox.files.exists("sub")
    with pytest.raises(SandboxRequestError) as raised:
        sandbox.files.read("sub/deep/data.bin")
    assert raised.value.status_code == 404
    for path in ("../../etc/passwd", "/../etc/passwd"):
        with pytest.raises(SandboxRequestError) as raised:
            sandbox.files.list(path)
        assert raised.value.status_code == 403
