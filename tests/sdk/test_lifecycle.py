"""Creating, finding and giving back sandboxes with the synchronous client."""

from datetime import UTC, datetime

import pytest
from kubernetes.client import ApiException

from conftest import advance_shutdown, claim, sandbox_object, wait_for_pool
from eventually import eventually
from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.exceptions import (
    SandboxClaimFailedError,
    SandboxNotFoundError,
    SandboxTemplateNotFoundError,
    SandboxWarmPoolNotFoundError,
)
from sdk_platform import connection


def test_a_sandbox_comes_from_the_pool_and_goes_with_its_claim(client, objects, core):
    wait_for_pool(objects)
    sandbox = client.create_sandbox(warmpool="warm")
    bound = claim(objects, sandbox.claim_name)
    assert bound["status"]["sandbox"]["name"] == sandbox.sandbox_id
    assert sandbox.sandbox_id != sandbox.claim_name, "a pool member keeps its name"
    assert sandbox_object(objects, sandbox.sandbox_id)["metadata"]["labels"][
        "agents.x-k8s.io/launch-type"
    ] == "warm"
    assert sandbox.status()[0] == "SandboxReady"
    assert sandbox.is_active

    name = sandbox.claim_name  # the handle forgets it
    sandbox.terminate()
    assert not sandbox.is_active
    eventually(lambda: claim(objects, name) is None)
    eventually(lambda: sandbox_object(objects, sandbox.sandbox_id) is None)
    eventually(
        lambda: sandbox.sandbox_id
        not in [pod.metadata.name for pod in core.list_namespaced_pod("default").items]
    )


def test_a_pool_of_none_starts_cold(client, objects):
    sandbox = client.create_sandbox(warmpool="cold")
    assert sandbox.sandbox_id == sandbox.claim_name
    labels = sandbox_object(objects, sandbox.sandbox_id)["metadata"]["labels"]
    assert labels["agents.x-k8s.io/launch-type"] == "cold"
    assert sandbox.commands.run("echo cold").stdout == "cold\n"


def test_each_claim_has_its_own_sandbox(client):
    sandboxes = [client.create_sandbox(warmpool="warm") for _ in range(3)]
    assert len({sandbox.sandbox_id for sandbox in sandboxes}) == 3
    for number, sandbox in enumerate(sandboxes):
        sandbox.files.write("mine.txt", str(number))
    for number, sandbox in enumerate(sandboxes):
        assert sandbox.files.read("mine.txt") == str(number).encode()


def test_get_returns_the_same_handle_and_attaches_elsewhere(client, sandbox):
    assert client.get_sandbox(sandbox.claim_name) is sandbox
    other = SandboxClient(connection_config=connection())
    attached = other.get_sandbox(sandbox.claim_name)
    assert attached is not sandbox and attached.sandbox_id == sandbox.sandbox_id
    sandbox.files.write("shared.txt", "one sandbox, two handles")
    assert attached.files.read("shared.txt") == b"one sandbox, two handles"
    attached.close_connection()


def test_get_of_an_absent_claim_is_not_found(client):
    with pytest.raises(SandboxNotFoundError):
        client.get_sandbox("no-such-claim", resolve_timeout=1)


def test_lists(client):
    assert client.list_active_sandboxes() == []
    first = client.create_sandbox(warmpool="warm", labels={"team": "a"})
    second = client.create_sandbox(warmpool="warm", labels={"team": "b"})
    active = {("default", first.claim_name), ("default", second.claim_name)}
    assert set(client.list_active_sandboxes()) == active
    assert {first.claim_name, second.claim_name} <= set(client.list_all_sandboxes())
    assert client.list_all_sandboxes(label_selector="team=a") == [first.claim_name]
    client.delete_sandbox(first.claim_name)
    assert client.list_active_sandboxes() == [("default", second.claim_name)]


def test_delete_all_leaves_nothing(client, objects):
    names = [client.create_sandbox(warmpool="warm").claim_name for _ in range(2)]
    client.delete_all()
    assert client.list_active_sandboxes() == []
    for name in names:
        eventually(lambda name=name: claim(objects, name) is None)


def test_deleting_an_absent_sandbox_is_quiet(client):
    client.delete_sandbox("no-such-claim")


def test_a_context_manager_deletes_what_it_made(objects):
    with SandboxClient(connection_config=connection()) as client:
        name = client.create_sandbox(warmpool="warm").claim_name
        assert claim(objects, name)
    eventually(lambda: claim(objects, name) is None)


def test_shutdown_after_seconds_deletes_the_claim(client, objects):
    asked = datetime.now(UTC)
    sandbox = client.create_sandbox(warmpool="warm", shutdown_after_seconds=3600)
    advance_shutdown(objects, sandbox.claim_name, asked)
    eventually(lambda: claim(objects, sandbox.claim_name) is None)
    eventually(lambda: sandbox_object(objects, sandbox.sandbox_id) is None)


def test_labels_are_on_the_claim(client, objects):
    sandbox = client.create_sandbox(warmpool="warm", labels={"example.com/team": "research"})
    labels = claim(objects, sandbox.claim_name)["metadata"]["labels"]
    assert labels["example.com/team"] == "research"
    assert labels["agents.x-k8s.io/created-by"] == "python-client"


def test_a_label_that_is_none_is_refused_before_it_is_sent(client):
    with pytest.raises(ValueError):
        client.create_sandbox(warmpool="warm", labels={"not a key!": "x"})


def test_pod_annotations_reach_the_running_pod(client, core):
    sandbox = client.create_sandbox(warmpool="warm", pod_annotations={"example.com/run": "42"})

    def annotated():
        pod = core.read_namespaced_pod(sandbox.get_pod_name(), "default")
        return (pod.metadata.annotations or {}).get("example.com/run") == "42"

    eventually(annotated)


def test_environment_variables_start_cold_and_arrive(client):
    sandbox = client.create_sandbox(warmpool="warm", env={"GREETING": "hello"})
    assert sandbox.sandbox_id == sandbox.claim_name, "an own environment needs an own pod"
    assert "GREETING=hello\n" in sandbox.commands.run("env").stdout


def test_an_explicit_name_is_kept_and_adopted(client):
    first = client.create_sandbox(warmpool="warm", claim_name="by-name")
    with pytest.raises(ApiException) as conflict:
        client.create_sandbox(warmpool="warm", claim_name="by-name")
    assert conflict.value.status == 409
    again = client.create_sandbox(warmpool="warm", claim_name="by-name", adopt_existing=True)
    assert again.sandbox_id == first.sandbox_id


def test_an_absent_pool_is_named_at_once(client, objects):
    before = set(client.list_all_sandboxes())
    with pytest.raises(SandboxWarmPoolNotFoundError):
        client.create_sandbox(warmpool="no-such-pool")
    eventually(lambda: set(client.list_all_sandboxes()) <= before)  # the failed claim is rolled back


def test_an_absent_template_is_named_at_once(client):
    with pytest.raises(SandboxTemplateNotFoundError):
        client.create_sandbox(warmpool="orphaned")


def test_a_terminal_failure_is_raised_without_waiting(client):
    with pytest.raises(SandboxClaimFailedError):
        client.create_sandbox(warmpool="warm", pod_labels={"not-allowed.example/x": "y"})


def test_an_empty_pool_name_is_refused(client):
    with pytest.raises(ValueError):
        client.create_sandbox(warmpool="")


def test_a_sandbox_that_cannot_start_times_out_and_is_rolled_back(client, objects):
    objects.create_namespaced_custom_object(
        "extensions.agents.x-k8s.io",
        "v1beta1",
        "default",
        "sandboxtemplates",
        {
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
            "kind": "SandboxTemplate",
            "metadata": {"name": "unknown-image"},
            "spec": {
                "podTemplate": {
                    "spec": {"containers": [{"name": "main", "image": "no.such/image:1"}]}
                }
            },
        },
    )
    objects.create_namespaced_custom_object(
        "extensions.agents.x-k8s.io",
        "v1beta1",
        "default",
        "sandboxwarmpools",
        {
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
            "kind": "SandboxWarmPool",
            "metadata": {"name": "unknown-image"},
            "spec": {"replicas": 0, "sandboxTemplateRef": {"name": "unknown-image"}},
        },
    )
    before = set(client.list_all_sandboxes())
    with pytest.raises(TimeoutError):
        client.create_sandbox(warmpool="unknown-image", sandbox_ready_timeout=2)
    eventually(lambda: set(client.list_all_sandboxes()) <= before)
