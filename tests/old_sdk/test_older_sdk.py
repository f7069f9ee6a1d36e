"""What users of the older SDK do: name a template, and a pool or none."""

from importlib.metadata import version

import pytest

from conftest import CLAIMS, SANDBOXES, owner
from eventually import eventually
from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.exceptions import SandboxNotFoundError, SandboxTemplateNotFoundError
from sdk_platform import connection


def test_this_is_the_older_sdk():
    assert version("k8s-agent-sandbox") == "0.4.6"


@pytest.mark.parametrize("policy", [None, "default", "warm"])
def test_a_claim_of_a_template_adopts_a_member_of_its_pool(client, objects, policy):
    objects.wait_for_pool()
    members = objects.pool_members()
    sandbox = client.create_sandbox("pooled", warmpool=policy)
    assert sandbox.sandbox_id in members, "it was there before the claim"
    assert objects.launch_type(sandbox) == "warm"
    claim = objects.get(CLAIMS, sandbox.claim_name)
    assert claim["apiVersion"] == "extensions.agents.x-k8s.io/v1alpha1"
    assert claim["spec"]["sandboxTemplateRef"] == {"name": "pooled"}
    assert claim["status"]["sandbox"]["name"] == sandbox.sandbox_id
    taken_over = ("SandboxClaim", sandbox.claim_name)
    eventually(lambda: owner(objects.get(SANDBOXES, sandbox.sandbox_id)) == taken_over)
    assert sandbox.commands.run("echo warm").stdout == "warm\n"


@pytest.mark.parametrize(("template", "policy"), [("pooled", "none"), ("unpooled", None), ("unpooled", "default")])
def test_a_claim_without_a_pool_starts_cold(client, objects, template, policy):
    objects.wait_for_pool()
    members = objects.pool_members()
    sandbox = client.create_sandbox(template, warmpool=policy)
    assert sandbox.sandbox_id == sandbox.claim_name
    assert objects.launch_type(sandbox) == "cold"
    assert objects.pool_members() == members, "no member was taken"
    assert sandbox.commands.run("echo cold").stdout == "cold\n"


def test_files_and_commands(client):
    sandbox = client.create_sandbox("pooled")
    sandbox.files.write("notes.txt", "kept")
    assert sandbox.files.exists("notes.txt")
    assert sandbox.files.read("notes.txt") == b"kept"
    assert "notes.txt" in [entry.name for entry in sandbox.files.list(".")]
    result = sandbox.commands.run("sh -c 'cat notes.txt; echo trouble >&2; exit 3'")
    assert (result.stdout, result.stderr, result.exit_code) == ("kept", "trouble\n", 3)


def test_status_and_pod_name(client, objects):
    sandbox = client.create_sandbox("pooled")
    assert sandbox.status()[0] == "SandboxReady"
    pod = objects.core.read_namespaced_pod(sandbox.get_pod_name(), "default")
    assert pod.status.pod_ip == sandbox.get_pod_ip()
    assert pod.metadata.labels["agents.x-k8s.io/sandbox-name-hash"] == sandbox.get_sandbox_name_hash()


def test_an_absent_template_is_named_at_once(client):
    before = set(client.list_all_sandboxes())
    with pytest.raises(SandboxTemplateNotFoundError):
        client.create_sandbox("no-such-template")
    eventually(lambda: set(client.list_all_sandboxes()) <= before)  # the failed claim is rolled back


def test_another_client_attaches_by_name(client):
    sandbox = client.create_sandbox("pooled", labels={"team": "research"})
    assert sandbox.claim_name in client.list_all_sandboxes()
    assert client.list_active_sandboxes() == [("default", sandbox.claim_name)]
    sandbox.files.write("shared.txt", "one sandbox, two handles")
    attached = SandboxClient(connection_config=connection()).get_sandbox(sandbox.claim_name)
    assert attached.sandbox_id == sandbox.sandbox_id
    assert attached.files.read("shared.txt") == b"one sandbox, two handles"
    attached.close_connection()


def test_deletion_takes_everything_away(client, objects):
    sandbox = client.create_sandbox("pooled")
    name, claim = sandbox.sandbox_id, sandbox.claim_name
    client.delete_sandbox(claim)
    eventually(lambda: objects.get(CLAIMS, claim) is None)
    eventually(lambda: objects.get(SANDBOXES, name) is None)
    pods = lambda: [pod.metadata.name for pod in objects.core.list_namespaced_pod("default").items]
    eventually(lambda: name not in pods())
    with pytest.raises(SandboxNotFoundError):
        client.get_sandbox(claim, resolve_timeout=2)


def test_a_claim_ends_at_its_time(client, objects):
    sandbox = client.create_sandbox("pooled", shutdown_after_seconds=3600)
    lifecycle = objects.get(CLAIMS, sandbox.claim_name)["spec"]["lifecycle"]
    assert lifecycle["shutdownPolicy"] == "Delete"
    # Brought near only now: a claim that is due in a moment may be gone before it is ready.
    body = {"spec": {"lifecycle": {"shutdownTime": "2020-01-01T00:00:00Z"}}}
    objects.api.patch_namespaced_custom_object(*CLAIMS, sandbox.claim_name, body)
    eventually(lambda: objects.get(CLAIMS, sandbox.claim_name) is None)
    eventually(lambda: objects.get(SANDBOXES, sandbox.sandbox_id) is None)


def test_replicas_suspend_and_resume(client, objects):
    sandbox = client.create_sandbox("pooled")
    first = sandbox.get_pod_ip()
    assert first

    def scale(replicas):
        body = {"spec": {"replicas": replicas}}
        objects.api.patch_namespaced_custom_object(*SANDBOXES, sandbox.sandbox_id, body)

    scale(0)
    eventually(lambda: sandbox.get_pod_ip() is None)
    assert sandbox.status()[0] == "SandboxNotReady"
    scale(1)
    eventually(lambda: sandbox.status()[0] == "SandboxReady" and sandbox.get_pod_ip())
    again = client.get_sandbox(sandbox.claim_name)
    assert again.commands.run("echo back").stdout == "back\n"


async def test_the_asynchronous_client_starts_warm_and_cold(async_client, objects):
    objects.wait_for_pool()
    members = objects.pool_members()
    warm = await async_client.create_sandbox("pooled")
    assert warm.sandbox_id in members
    cold = await async_client.create_sandbox("pooled", warmpool="none")
    assert cold.sandbox_id == cold.claim_name
    for sandbox in (warm, cold):
        assert (await sandbox.commands.run("echo hello")).stdout == "hello\n"
