"""The Python image through the router, in a pod that may do as little as the images' documentation asks for."""

import pytest

from k8s_agent_sandbox import SandboxClient
from sdk_platform import connection


@pytest.fixture
def sandbox():
    with SandboxClient(connection_config=connection()) as client:
        yield client.create_sandbox(warmpool="python")
        client.delete_all()


def printed(sandbox, command):
    """What a command prints that succeeds."""
    result = sandbox.commands.run(command, timeout=120)
    assert result.exit_code == 0, (command, result)
    return result.stdout


def test_files_are_written_run_and_listed(sandbox):
    sandbox.files.write(
        "work.py",
        "import json, ssl, sqlite3, sys\n"
        "json.dump({'version': sys.version_info[:2], 'arguments': sys.argv[1:]}, open('answer.json', 'w'))\n",
    )
    printed(sandbox, "python work.py 'a  b' ü")
    assert sandbox.files.read("answer.json").decode() == (
        '{"version": [3, 13], "arguments": ["a  b", "\\u00fc"]}'
    )
    assert {entry.name for entry in sandbox.files.list(".")} >= {"work.py", "answer.json"}
    assert sandbox.files.exists("answer.json")


def test_pip_venv_and_git_work_beside_a_root_that_cannot_be_written(sandbox):
    assert "pip" in printed(sandbox, "pip --version")
    printed(sandbox, "python -m venv --without-pip environment")
    assert printed(sandbox, "environment/bin/python -c 'import sys; print(sys.prefix)'") == "/workspace/environment\n"
    printed(sandbox, "git init --quiet repository")
    printed(sandbox, "git -C repository -c user.name=a -c user.email=a@b commit --quiet --allow-empty -m first")
    assert printed(sandbox, "git -C repository log --format=%s") == "first\n"


def test_the_sandbox_may_do_little(sandbox):
    assert printed(sandbox, "id -un") == "sandbox\n" and printed(sandbox, "id -u") == "1000\n"
    for directory in ("/workspace", "/tmp"):
        printed(sandbox, f"touch {directory}/file")
    for path in ("/file", "/usr/file", "/app/file", "/home/file"):
        result = sandbox.commands.run(f"touch {path}")
        assert result.exit_code == 1 and "Read-only file system" in result.stderr, (path, result)
    status = dict(line.split(":\t", 1) for line in printed(sandbox, "cat /proc/self/status").splitlines())
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert sandbox.commands.run("ls /var/run/secrets/kubernetes.io").exit_code != 0
