"""Starting the program as its user does, and asking it with the system's kubectl."""

import contextlib
import shutil
import subprocess
import threading

import pytest

from eventually import PATIENCE, eventually
from platform_process import EXAMPLES, Platform

# For `kubectl wait`, which on its own gives up after thirty seconds.
TIMEOUT = f"--timeout={PATIENCE}s"


@pytest.fixture
def start(tmp_path):
    """Starts platforms on state directories below the test's own; stops them at the end."""
    started = []

    def start(*arguments, state="state"):
        platform = Platform(tmp_path / state, *arguments)
        started.append(platform)
        return platform

    yield start
    for platform in started:
        platform.__exit__()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A platform with the examples applied, shared by a module's tests."""
    examples = [EXAMPLES / "template.yaml", EXAMPLES / "pool.yaml"]
    with Platform(tmp_path_factory.mktemp("platform"), "--apply", *examples) as platform:
        yield platform.wait_ready()


@pytest.fixture(scope="module")
def kubectl(running, tmp_path_factory):
    """Runs kubectl against the module's platform."""
    return kubectl_for(running, tmp_path_factory.mktemp("home"))


def kubectl_for(platform, home):
    """Runs kubectl against a platform, with a cache of its own: its output, or its error with `ok=False`.

    With `ok=None` either will do.
    """
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")

    def kubectl(*arguments, ok=True, input=None):
        result = subprocess.run(
            ["kubectl", *[str(argument) for argument in arguments]],
            env={**platform.environment, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,  # `kubectl wait` gives up first, and says on what.
            input=input,
            check=False,
        )
        worked = result.returncode == 0
        assert ok in (None, worked), result.stdout + result.stderr
        return result.stdout if worked else result.stderr

    return kubectl


@contextlib.contextmanager
def reading(platform, *arguments):
    """A kubectl that says things as they happen, for its `stdout` to be read line by line.

    It is ended after a time, so that reading what never comes fails instead of waiting.
    """
    process = subprocess.Popen(
        ["kubectl", *arguments],
        env=platform.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    limit = threading.Timer(PATIENCE, process.kill)
    limit.start()
    try:
        yield process
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for_pool(kubectl, replicas=2):
    """Waits until the example's pool is full: only then is a claim certain to get one of its members."""
    kubectl("wait", f"--for=jsonpath={{.status.readyReplicas}}={replicas}", "swp/python-pool", TIMEOUT)


def wait_for_log(kubectl, pod, expected, *arguments):
    """Waits until a container has said this and nothing else."""
    # Asking for the log of a container that has not started is an error.
    said = lambda: kubectl("logs", pod, *arguments, ok=None)
    eventually(lambda: said() == expected, message=f"{expected!r} in the log of {pod}")
