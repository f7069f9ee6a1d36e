"""`kubectl logs` against pods of `agent-sandbox up`."""

import json
import re

import pytest

from conftest import TIMEOUT, reading, wait_for_log, wait_for_pool
from eventually import PATIENCE, eventually


def pod(name, **scripts):
    """A pod with one container per script; `/shared` outlives a container's restart."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "containers": [
                {
                    "name": container,
                    "image": "busybox",
                    "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
                }
                for container, script in scripts.items()
            ],
        },
    }


@pytest.fixture
def run_pod(kubectl):
    """Creates pods, and deletes them at the end."""
    names = []

    def create(manifest):
        kubectl("apply", "-f", "-", input=json.dumps(manifest))
        names.append(manifest["metadata"]["name"])
        return names[-1]

    yield create
    for name in names:
        kubectl("delete", "pod", name, "--ignore-not-found")


def test_which_lines_are_chosen(kubectl, run_pod):
    main = "printf 'one\\ntwo\\nthree\\n'; exec sleep 1000"
    name = run_pod(pod("lines", main=main, other="echo other; exec sleep 1000"))
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", TIMEOUT)
    wait_for_log(kubectl, name, "one\ntwo\nthree\n", "-c", "main")
    wait_for_log(kubectl, name, "other\n", "-c", "other")
    assert kubectl("logs", name) == "one\ntwo\nthree\n", "the first container is the default"
    assert kubectl("logs", name, "--tail=2") == "two\nthree\n"
    assert kubectl("logs", name, "--tail=0") == ""
    assert kubectl("logs", name, "--limit-bytes=5") == "one\nt"
    assert kubectl("logs", name, "--since=1h", "-c", "other") == "other\n"
    stamped = kubectl("logs", name, "--timestamps", "--tail=1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\S+Z three\n", stamped), stamped
    everything = kubectl("logs", name, "--all-containers", "--prefix").splitlines()
    assert f"[pod/{name}/main] three" in everything and f"[pod/{name}/other] other" in everything


def test_the_previous_run(kubectl, run_pod):
    script = "if [ -e /shared/ran ]; then echo second; exec sleep 1000; fi; touch /shared/ran; echo first; exit 3"
    name = run_pod(pod("restarted", main=script))
    eventually(lambda: kubectl("get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}") == "1")
    wait_for_log(kubectl, name, "second\n")
    assert kubectl("logs", name, "--previous") == "first\n"


def test_following_until_the_pod_goes(kubectl, run_pod, running):
    name = run_pod(pod("ticking", main="n=0; while :; do echo tick $n; n=$((n+1)); sleep 0.1; done"))
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", TIMEOUT)
    with reading(running, "logs", "--follow", name) as follow:
        lines = [follow.stdout.readline() for _ in range(5)]
        assert lines == [f"tick {number}\n" for number in range(5)], "from the first line on, as they come"
        kubectl("delete", "pod", name)
        assert follow.wait() == 0


def test_what_is_not_there_is_said(kubectl, run_pod):
    manifest = pod("imageless", main="true")
    manifest["spec"]["containers"][0]["image"] = "registry.example/no-such-image:1"
    name = run_pod(manifest)
    eventually(lambda: "waiting to start" in kubectl("logs", name, ok=None))
    assert "previous terminated container" in kubectl("logs", name, "--previous", ok=False)
    assert "container none is not valid" in kubectl("logs", name, "-c", "none", ok=False)
    assert 'pods "absent" not found' in kubectl("logs", "absent", ok=False)


def test_a_sandbox_has_logs(kubectl):
    wait_for_pool(kubectl)
    names = kubectl("get", "pods", "-l", "app=python-sandbox", "-o", "name").split()
    assert len(names) == 2
    eventually(lambda: "8888" in kubectl("logs", names[0]), message="the runtime says where it listens")


def test_what_is_not_served_says_so(kubectl, run_pod):
    name = run_pod(pod("streamless", main="exec sleep 1000"))
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", TIMEOUT)
    for arguments in (["exec", name, "--", "true"], ["port-forward", f"pod/{name}", "0:80"]):
        error = kubectl(*arguments, ok=False)
        assert "neither exec, attach nor port-forward" in error, error
