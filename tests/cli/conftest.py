"""Starting the program as its user does."""

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
