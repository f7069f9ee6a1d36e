"""Clients of the unmodified older SDK, which knows `v1alpha1` alone, pointed at the platform that the
environment names."""

import pytest
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

import sdk_platform
from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.async_sandbox_client import AsyncSandboxClient
from sdk_platform import NAMESPACE, connection

CLAIMS = ("extensions.agents.x-k8s.io", "v1alpha1", NAMESPACE, "sandboxclaims")
POOLS = ("extensions.agents.x-k8s.io", "v1alpha1", NAMESPACE, "sandboxwarmpools")
SANDBOXES = ("agents.x-k8s.io", "v1alpha1", NAMESPACE, "sandboxes")


@pytest.fixture
def client():
    """A client whose sandboxes are gone when the test ends."""
    client = SandboxClient(connection_config=connection())
    yield client
    client.delete_all()


@pytest.fixture
async def async_client():
    async with AsyncSandboxClient(connection_config=connection()) as client:
        yield client
        await client.delete_all()


class Objects:
    """The cluster's objects as `v1alpha1` shows them, for looking behind the SDK."""

    def __init__(self):
        kubernetes_config.load_kube_config()
        self.api = kubernetes_client.CustomObjectsApi()
        self.core = kubernetes_client.CoreV1Api()

    def get(self, kind, name):
        """The object, or None."""
        return sdk_platform.found(self.api, kind, name)

    def launch_type(self, sandbox):
        labels = self.get(SANDBOXES, sandbox.sandbox_id)["metadata"]["labels"]
        return labels["agents.x-k8s.io/launch-type"]

    def pool_members(self):
        """Names of the sandboxes that the pool has at this moment: it owns them, and has given them to nobody."""
        given = self.get(POOLS, "warm").get("status", {}).get("allocations", [])
        sandboxes = self.api.list_namespaced_custom_object(*SANDBOXES)["items"]
        owned = {sandbox["metadata"]["name"] for sandbox in sandboxes if owner(sandbox)[1] == "warm"}
        return owned - {entry.split("=")[1].split("/")[0] for entry in given}

    def wait_for_pool(self):
        """Waits until the pool is full: only then is a claim certain to get one of its members."""
        sdk_platform.wait_for_pool(self.api, POOLS, "warm")


def owner(sandbox):
    """Kind and name of what a sandbox belongs to. Its claim takes it over a moment after it is ready."""
    reference = sandbox["metadata"].get("ownerReferences", [{}])[0]
    return reference.get("kind"), reference.get("name")


@pytest.fixture(scope="session")
def objects():
    return Objects()
