"""The image for data analysis through the router, in a pod that may do as little as the images' documentation asks for."""

import re
from pathlib import Path

import pytest

from k8s_agent_sandbox import SandboxClient
from sdk_platform import connection

# Does something with every library, and prints its name; `cargo xtask image --try` runs it without a cluster.
LIBRARIES = Path(__file__).parents[2] / "images" / "libraries.py"


@pytest.fixture
def sandbox():
    with SandboxClient(connection_config=connection()) as client:
        yield client.create_sandbox(warmpool="python-data")
        client.delete_all()


def test_every_library_does_its_work_without_a_complaint(sandbox):
    script = LIBRARIES.read_text()
    sandbox.files.write("libraries.py", script)
    result = sandbox.commands.run("python libraries.py", timeout=300)
    assert (result.exit_code, result.stderr) == (0, ""), result
    names = re.findall(r"^@check\ndef (\w+)\(", script, re.MULTILINE)
    assert {"numpy", "pandas", "scipy", "matplotlib", "sklearn", "xgboost"} <= set(names)
    assert result.stdout.split() == names
    picture = sandbox.files.read("figure.png")
    assert picture.startswith(b"\x89PNG") and len(picture) > 4000
