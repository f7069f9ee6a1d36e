"""Starting the program as its user does, and asking it with the system's kubectl."""

import shutil
import subprocess

import pytest

from platform_process import EXAMPLES, Platform


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
    """Runs kubectl against the module's platform: its output, or its error with `ok=False`."""
    return kubectl_for(running, tmp_path_factory.mktemp("home"))


def kubectl_for(platform, home):
    """Runs kubectl against a platform, with a cache of its own."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")

    def kubectl(*arguments, ok=True, input=None):
        result = subprocess.run(
            ["kubectl", *[str(argument) for argument in arguments]],
            env={**platform.environment, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=120,
            input=input,
            check=False,
        )
        assert (result.returncode == 0) == ok, result.stdout + result.stderr
        return result.stdout if ok else result.stderr

    return kubectl
