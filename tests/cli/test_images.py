"""Image names that the user gives a meaning."""

import subprocess

from conftest import TIMEOUT, kubectl_for, wait_for_log
from eventually import PATIENCE
from platform_process import BINARY


def test_mapped_images_run_and_an_unknown_one_says_how_to_map_it(start, tmp_path):
    platform = start("--image", "greeter=/bin/echo", "--image", "team/greeter:2=greeter").wait_ready()
    kubectl = kubectl_for(platform, tmp_path)
    for name, image in [("one", "greeter"), ("two", "registry.example/team/greeter:2")]:
        kubectl("run", name, f"--image={image}", "--restart=Never", "--", "hello", name)
        kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", TIMEOUT)
        wait_for_log(kubectl, name, f"hello {name}\n")
    kubectl("run", "three", "--image=nginx", "--restart=Never")
    waiting = "{.status.containerStatuses[0].state.waiting.message}"
    kubectl("wait", f"--for=jsonpath={waiting}", "pod/three", TIMEOUT)
    message = kubectl("get", "pod", "three", f"-o=jsonpath={waiting}")
    assert "greeter" in message and "`agent-sandbox up` with --image NAME=IMAGE" in message


def refused(*arguments, state):
    result = subprocess.run(
        [BINARY, "up", "--state-dir", state, "--router-port=0", "--api-port=0", *arguments, "--", "true"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode not in (0, None)
    assert not state.exists(), "nothing was started"
    return result.stderr


def test_a_bad_mapping_is_refused_with_the_form(tmp_path):
    state = tmp_path / "state"
    assert "expected NAME=IMAGE or NAME=/PATH/OF/PROGRAM" in refused("--image", "name", state=state)
    error = refused("--image", "name=/no/such/program", state=state)
    assert "--image" in error and "/no/such/program is not a file that can be executed" in error
    error = refused("--image", "name=absent", state=state)
    assert "--image name=absent" in error and "python-runtime-sandbox" in error
