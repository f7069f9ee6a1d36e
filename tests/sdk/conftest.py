"""Clients of the unmodified SDK, pointed at the platform that the environment names."""

from datetime import UTC, datetime, timedelta

import pytest
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

import sdk_platform
from eventually import PATIENCE
from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.async_sandbox_client import AsyncSandboxClient
from sdk_platform import NAMESPACE, connection

EXTENSIONS = "extensions.agents.x-k8s.io"
AGENTS = "agents.x-k8s.io"
CLAIMS = (EXTENSIONS, "v1beta1", NAMESPACE, "sandboxclaims")
POOLS = (EXTENSIONS, "v1beta1", NAMESPACE, "sandboxwarmpools")
SANDBOXES = (AGENTS, "v1beta1", NAMESPACE, "sandboxes")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
# Seconds after which a command is ended, tried in turn until the command had time to say something: on
# a busy machine the first may be over before it ran.
TIME_LIMITS = (1, 5, 30)


@pytest.fixture
def client():
    """A client whose sandboxes are gone when the test ends."""
    with SandboxClient(connection_config=connection()) as client:
        yield client
        client.delete_all()


@pytest.fixture
def sandbox(client):
    """A ready sandbox from the warm pool."""
    return client.create_sandbox(warmpool="warm")


@pytest.fixture
async def async_client():
    async with AsyncSandboxClient(connection_config=connection(), cleanup=False) as client:
        yield client
        await client.delete_all()


@pytest.fixture
async def async_sandbox(async_client):
    return await async_client.create_sandbox(warmpool="warm")


@pytest.fixture(scope="session")
def objects():
    """The custom objects of the cluster, for looking behind the SDK."""
    kubernetes_config.load_kube_config()
    return kubernetes_client.CustomObjectsApi()


@pytest.fixture(scope="session")
def core():
    kubernetes_config.load_kube_config()
    return kubernetes_client.CoreV1Api()


def wait_for_pool(objects, name="warm", deadline=PATIENCE):
    """Waits until a pool is full: only then is a claim certain to get one of its members."""
    sdk_platform.wait_for_pool(objects, POOLS, name, deadline)


def advance_shutdown(objects, name, asked):
    """Moves a claim's shutdown time from an hour after `asked` to a second from now.

    A claim that is made with a second to live may be gone before it is ready.
    """
    lifecycle = claim(objects, name)["spec"]["lifecycle"]
    assert lifecycle["shutdownPolicy"] == "Delete"
    shutdown = datetime.strptime(lifecycle["shutdownTime"], TIME_FORMAT).replace(tzinfo=UTC)
    hour = timedelta(hours=1)
    assert asked.replace(microsecond=0) + hour <= shutdown <= datetime.now(UTC) + hour
    soon = (datetime.now(UTC) + timedelta(seconds=1)).strftime(TIME_FORMAT)
    body = {"spec": {"lifecycle": {"shutdownTime": soon}}}
    objects.patch_namespaced_custom_object(*CLAIMS, name, body)


def claim(objects, name):
    """The SandboxClaim, or None."""
    return sdk_platform.found(objects, CLAIMS, name)


def sandbox_object(objects, name):
    """The Sandbox, or None."""
    return sdk_platform.found(objects, SANDBOXES, name)
