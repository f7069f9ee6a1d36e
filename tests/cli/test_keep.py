"""`agent-sandbox up --keep`: what the next run finds."""

import json
import urllib.error
import urllib.request

import pytest

from conftest import TIMEOUT, kubectl_for, wait_for_log, wait_for_pool
from eventually import PATIENCE, eventually
from platform_process import EXAMPLES

MANIFESTS = ["--apply", EXAMPLES / "template.yaml", EXAMPLES / "pool.yaml"]

# Leaves something on the claimed volume and in its own files, and then says what it had found in both.
KEEPER = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: busybox
      command:
        - sh
        - -c
        - 'found="volume: $(ls /data) own: $(ls /own)"; touch /data/kept /own/lost; echo $found; exec sleep 1000'
      volumeMounts: [{name: data, mountPath: /data}, {name: own, mountPath: /own}]
  volumes:
    - {name: data, persistentVolumeClaim: {claimName: data}}
    - {name: own, emptyDir: {}}
"""


@pytest.fixture
def run(start, tmp_path):
    """Starts a platform on the one state directory and gives kubectl for it."""

    def run(*arguments):
        platform = start(*arguments).wait_ready()
        return platform, kubectl_for(platform, tmp_path)

    return run


def stop(platform):
    platform.process.terminate()
    assert platform.process.wait(PATIENCE) == 0, platform.errors


def uid(kubectl, *what):
    return kubectl("get", *what, "-o", "jsonpath={.metadata.uid}")


def execute(platform, sandbox, command):
    """Runs a command in a sandbox, through the router."""
    request = urllib.request.Request(
        platform.exported("SANDBOX_ROUTER_URL") + "/execute",
        data=json.dumps({"command": command}).encode(),
        headers={"Content-Type": "application/json", "X-Sandbox-ID": sandbox, "X-Sandbox-Namespace": "default"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["stdout"]
    except urllib.error.HTTPError as refusal:
        return f"{refusal.code} {refusal.read().decode()}"


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_objects_and_volumes_are_kept_and_pods_start_again(run, killed):
    platform, kubectl = run("--keep", *MANIFESTS)
    kubectl("apply", "-f", EXAMPLES / "claim.yaml")
    kubectl("wait", "--for=condition=Ready", "sandboxclaim/my-sandbox", TIMEOUT)
    kubectl("apply", "-f", "-", input=KEEPER)
    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/keeper", TIMEOUT)
    wait_for_log(kubectl, "keeper", "volume: own:\n")
    claim = uid(kubectl, "sandboxclaim", "my-sandbox")
    sandbox = kubectl("get", "sandboxclaim", "my-sandbox", "-o", "jsonpath={.status.sandbox.name}")
    if killed:
        platform.process.kill()
        platform.process.wait()
    else:
        stop(platform)

    platform, kubectl = run("--keep")
    assert uid(kubectl, "sandboxclaim", "my-sandbox") == claim
    wait_for_log(kubectl, "keeper", "volume: kept own:\n")
    kubectl("wait", "--for=condition=Ready", "sandboxclaim/my-sandbox", TIMEOUT)
    kubectl("wait", "--for=condition=Ready", f"pod/{sandbox}", TIMEOUT)
    # What the journal says of the pod may be older than its new start.
    eventually(lambda: execute(platform, sandbox, "echo again") == "again\n")
    wait_for_pool(kubectl)


def test_without_the_flag_a_start_is_empty_and_touches_nothing_kept(run):
    platform, kubectl = run("--keep")
    kubectl("create", "configmap", "kept")
    stop(platform)

    platform, kubectl = run()
    assert "NotFound" in kubectl("get", "configmap", "kept", ok=False)
    kubectl("create", "configmap", "lost")
    stop(platform)
    assert sorted(path.name for path in platform.state_dir.iterdir()) == ["kept"]

    platform, kubectl = run("--keep")
    kubectl("get", "configmap", "kept")
    assert "NotFound" in kubectl("get", "configmap", "lost", ok=False)


def test_what_is_no_journal_is_left_alone(start, tmp_path):
    journal = tmp_path / "state" / "kept" / "objects"
    journal.parent.mkdir(parents=True)
    journal.write_text("precious")
    platform = start("--keep")
    assert platform.process.wait(PATIENCE) == 1
    eventually(lambda: platform.errors, message="the error is printed")
    assert str(journal) in platform.errors[0] and "move it away" in platform.errors[0], platform.errors
    assert journal.read_text() == "precious" and not (tmp_path / "state" / "lock").exists()
