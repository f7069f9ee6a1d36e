"""Clients of the unmodified SDK, pointed at the platform that the environment names."""

import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.async_sandbox_client import AsyncSandboxClient
from k8s_agent_sandbox.models import SandboxDirectConnectionConfig

EXTENSIONS = "extensions.agents.x-k8s.io"
AGENTS = "agents.x-k8s.io"
NAMESPACE = "default"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
# Seconds after which a command is ended, tried in turn until the command had time to say something: on
# a busy machine the first may be over before it ran.
TIME_LIMITS = (1, 5, 30)


def connection() -> SandboxDirectConnectionConfig:
    return SandboxDirectConnectionConfig(api_url=os.environ["SANDBOX_ROUTER_URL"])


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


def eventually(what, deadline=180.0):
    """Waits until `what()` is truthy and returns it; fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"did not happen within {deadline:.0f} s"
        time.sleep(0.02)


def wait_for_pool(objects, name="warm", deadline=180.0):
    """Waits until a pool is full: only then is a claim certain to get one of its members."""

    def full():
        pool = _get(objects, EXTENSIONS, "sandboxwarmpools", name)
        return pool.get("status", {}).get("readyReplicas") == pool["spec"]["replicas"]

    eventually(full, deadline)


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
    objects.patch_namespaced_custom_object(EXTENSIONS, "v1beta1", NAMESPACE, "sandboxclaims", name, body)


def claim(objects, name):
    """The SandboxClaim, or None."""
    return _get(objects, EXTENSIONS, "sandboxclaims", name)


def sandbox_object(objects, name):
    """The Sandbox, or None."""
    return _get(objects, AGENTS, "sandboxes", name)


def _get(objects, group, plural, name):
    try:
        return objects.get_namespaced_custom_object(group, "v1beta1", NAMESPACE, plural, name)
    except kubernetes_client.ApiException as error:
        if error.status == 404:
            return None
        raise
