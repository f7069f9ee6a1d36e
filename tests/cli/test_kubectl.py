"""The system's kubectl against `agent-sandbox up`: what it prints reads as on a real cluster."""

import json
import re
import subprocess

import pytest

from conftest import TIMEOUT, reading, wait_for_pool
from eventually import PATIENCE, eventually
from platform_process import EXAMPLES


def table(text):
    return [re.split(r"\s{2,}", line.strip()) for line in text.strip().splitlines()]


def wait_for_row(kubectl, header, cells, *arguments):
    """Waits until `kubectl get` prints a table with a row that begins with these cells."""

    def printed():
        first, *rows = table(kubectl("get", *arguments))
        assert first == header
        return cells in [row[: len(cells)] for row in rows]

    # What was ready may miss a probe on a busy machine, and be ready again.
    eventually(printed, message=f"{cells} in the output of `kubectl get`")


def test_applying_the_examples_again_changes_nothing(kubectl):
    out = kubectl("apply", "--server-side", "--field-manager=agent-sandbox-up", "-f", EXAMPLES / "pool.yaml")
    assert out == "sandboxwarmpool.extensions.agents.x-k8s.io/python-pool serverside-applied\n"
    kubectl("diff", "-f", EXAMPLES / "template.yaml")


def test_client_side_apply_of_every_example(kubectl):
    wait_for_pool(kubectl)
    for name in ("template.yaml", "pool.yaml", "claim.yaml"):
        out = kubectl("apply", "-f", EXAMPLES / name)
        assert re.search(r"/\S+ (created|configured|unchanged)\n", out), out
    assert "unchanged" in kubectl("apply", "-f", EXAMPLES / "claim.yaml")


def test_a_claim_becomes_ready_and_says_so_everywhere(kubectl):
    wait_for_pool(kubectl)
    kubectl("apply", "-f", EXAMPLES / "claim.yaml")
    out = kubectl("wait", "--for=condition=Ready", "sandboxclaim/my-sandbox", TIMEOUT)
    assert out == "sandboxclaim.extensions.agents.x-k8s.io/my-sandbox condition met\n"
    sandbox = kubectl("get", "sandboxclaim", "my-sandbox", "-o", "jsonpath={.status.sandbox.name}")
    assert sandbox.startswith("python-pool-")

    header = ["NAME", "READY", "SANDBOX", "REASON", "AGE"]
    wait_for_row(kubectl, header, ["my-sandbox", "True", sandbox, "DependenciesReady"], "sandboxclaims")
    wait_for_row(kubectl, ["NAME", "READY", "REASON", "AGE"], [sandbox], "sandboxes")
    header = ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    wait_for_row(kubectl, header, [sandbox, "1/1", "Running", "0"], "pod", sandbox)

    described = kubectl("describe", "sandboxclaim", "my-sandbox")
    for expected in ("Name:         my-sandbox", "Warm Pool Ref:", "Type:                  Ready", sandbox):
        assert expected in described, described
    eventually(lambda: "Ready             True" in kubectl("describe", "pod", sandbox))
    described = kubectl("describe", "pod", sandbox)
    for expected in ("Status:           Running", f"Controlled By:  Sandbox/{sandbox}", "Events:"):
        assert expected in described, described


def test_watching_shows_the_claim_turn_ready(kubectl, running):
    wait_for_pool(kubectl)
    with reading(running, "get", "sandboxclaims", "--watch") as watch:
        claim = (EXAMPLES / "claim.yaml").read_text().replace("my-sandbox", "watched")
        kubectl("apply", "-f", "-", input=claim)
        for line in watch.stdout:
            if re.match(r"watched\s+True\s+python-pool-\S+\s+DependenciesReady", line):
                break
        else:
            pytest.fail("the watch ended before the claim was ready")
    assert kubectl("delete", "sandboxclaim", "watched").startswith('sandboxclaim.extensions.agents.x-k8s.io "watched" deleted')


def test_scaling_the_pool(kubectl):
    out = kubectl("scale", "sandboxwarmpool/python-pool", "--replicas=4")
    assert out == "sandboxwarmpool.extensions.agents.x-k8s.io/python-pool scaled\n"
    wait_for_pool(kubectl, replicas=4)
    wait_for_row(kubectl, ["NAME", "READY", "DESIRED", "AGE"], ["python-pool", "4", "4"], "swp")
    kubectl("scale", "swp/python-pool", "--replicas=1")
    kubectl("wait", "--for=jsonpath={.status.replicas}=1", "swp/python-pool", TIMEOUT)


def test_patching_and_explaining(kubectl):
    kubectl("patch", "swp", "python-pool", "--type=merge", "-p", '{"spec":{"replicas":2}}')
    out = kubectl("explain", "sandboxtemplate.spec.podTemplate.spec.containers")
    assert "readinessProbe" in out and "KIND:       SandboxTemplate" in out
    out = kubectl("explain", "sandboxclaim.spec")
    assert "warmPoolRef" in out


def test_what_nobody_acts_on_is_stored_with_a_warning(running, kubectl):
    command = ["kubectl", "create", "deployment", "idle", "--image=busybox"]
    result = subprocess.run(command, env=running.environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert result.stdout == "deployment.apps/idle created\n"
    assert "Warning: this cluster stores Deployment objects, but nothing in it acts on them" in result.stderr
    kubectl("delete", "deployment", "idle")


def test_mistakes_are_refused_with_the_field(kubectl):
    error = kubectl("patch", "swp", "python-pool", "--type=merge", "-p", '{"spec":{"replicas":-1}}', ok=False)
    assert "spec.replicas" in error and "greater than or equal to 0" in error
    typo = (EXAMPLES / "claim.yaml").read_text().replace("warmPoolRef", "warmpoolRef")
    error = kubectl("apply", "-f", "-", ok=False, input=typo)
    assert 'unknown field "spec.warmpoolRef"' in error, error
    assert "NotFound" in kubectl("get", "sandbox", "absent", ok=False)


def test_a_missing_template_is_reported(kubectl):
    pool = (EXAMPLES / "pool.yaml").read_text()
    pool = pool.replace("name: python-pool", "name: hopeless").replace("name: python-sandbox", "name: absent")
    kubectl("apply", "-f", "-", input=pool)
    eventually(lambda: 'SandboxTemplate "absent" not found' in kubectl("describe", "swp", "hopeless"))
    kubectl("delete", "swp", "hopeless")


def older(kind, name, spec):
    return {
        "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def test_older_manifests_are_served_warm_and_cold(kubectl):
    pod = {"spec": {"containers": [{"name": "main", "image": "busybox", "command": ["sleep", "infinity"]}]}}
    of_template = {"sandboxTemplateRef": {"name": "older"}}
    kubectl("apply", "-f", "-", input=json.dumps(older("SandboxTemplate", "older", {"podTemplate": pod})))
    pool = older("SandboxWarmPool", "older", {"replicas": 2, **of_template})
    kubectl("apply", "-f", "-", input=json.dumps(pool))

    def members():
        """Names of the pool's sandboxes that it has given to nobody, once it is full."""
        kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "swp/older", TIMEOUT)
        given = kubectl("get", "swp", "older", "-o", "jsonpath={.status.allocations[*]}").split()
        given = {entry.split("=")[1].split("/")[0] for entry in given}
        sandboxes = json.loads(kubectl("get", "sandboxes", "-o", "json"))["items"]
        owned = {sandbox["metadata"]["name"] for sandbox in sandboxes if owner(sandbox) == "SandboxWarmPool/older"}
        return owned - given

    def owner(sandbox):
        reference = sandbox["metadata"]["ownerReferences"][0]
        return f"{reference['kind']}/{reference['name']}"

    for name, policy, warm in [("any", {}, True), ("named", {"warmpool": "older"}, True), ("none", {"warmpool": "none"}, False)]:
        before = members()
        claim = older("SandboxClaim", f"older-{name}", {**of_template, **policy})
        assert "created" in kubectl("apply", "-f", "-", input=json.dumps(claim))
        kubectl("wait", "--for=condition=Ready", f"sandboxclaims.v1alpha1.extensions.agents.x-k8s.io/older-{name}", TIMEOUT)
        bound = kubectl("get", "sandboxclaim", f"older-{name}", "-o", "jsonpath={.status.sandbox.name}")
        assert (bound in before) == warm, "a member of the pool was there before its claim"
        assert warm or bound == f"older-{name}"
        # The claim takes its sandbox over once it is ready.
        kubectl("wait", f"--for=jsonpath={{.metadata.ownerReferences[0].name}}=older-{name}", f"sandbox/{bound}", TIMEOUT)
        sandbox = json.loads(kubectl("get", "sandbox", bound, "-o", "json"))
        assert sandbox["metadata"]["labels"]["agents.x-k8s.io/launch-type"] == ("warm" if warm else "cold")
        assert owner(sandbox) == f"SandboxClaim/older-{name}"

    kubectl("delete", "sandboxclaims", "older-any", "older-named", "older-none")
    kubectl("delete", "swp/older", "sandboxtemplate/older")


def test_deleting_everything_leaves_nothing(kubectl):
    for name in ("claim.yaml", "pool.yaml", "template.yaml"):
        kubectl("apply", "-f", EXAMPLES / name)
    for name in ("claim.yaml", "pool.yaml", "template.yaml"):
        assert "deleted" in kubectl("delete", "-f", EXAMPLES / name)

    def nothing():
        listed = kubectl("get", "sandboxclaims,sandboxes,sandboxwarmpools,sandboxtemplates,pods", "-o", "json")
        return not json.loads(listed)["items"]

    eventually(nothing, message="every object is gone")


def test_the_router_is_found_under_its_name(kubectl, running):
    header, row = table(kubectl("get", "service", "sandbox-router-svc", "-n", "agent-sandbox-system"))
    port = running.exported("SANDBOX_ROUTER_URL").rpartition(":")[2]
    assert header == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert row[:5] == ["sandbox-router-svc", "ExternalName", "<none>", "localhost", f"{port}/TCP"]


def test_service_accounts_are_let_in(kubectl):
    token = kubectl("create", "token", "default").strip()
    review = json.loads(kubectl("auth", "whoami", "--token", token, "-o", "json"))
    assert review["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    error = kubectl("get", "pods", "--token", f"{token}x", ok=False)
    assert "must be logged in" in error or "Unauthorized" in error, error


def test_requests_are_counted(kubectl):
    kubectl("get", "sandboxtemplates")
    counted = kubectl("get", "--raw", "/metrics")
    assert re.search(r'apiserver_request_total\{.*resource="sandboxtemplates".*verb="LIST",version="v1beta1"\} [1-9]', counted), counted
