"""The platform that the environment names, as the suites of both SDKs reach it and look behind them."""

import os

from kubernetes import client as kubernetes_client

from eventually import PATIENCE, eventually
from k8s_agent_sandbox.models import SandboxDirectConnectionConfig

NAMESPACE = "default"


def connection():
    """How a client of the SDK reaches the router."""
    return SandboxDirectConnectionConfig(api_url=os.environ["SANDBOX_ROUTER_URL"])


def found(objects, kind, name):
    """An object of a kind (group, version, namespace, plural), or None."""
    try:
        return objects.get_namespaced_custom_object(*kind, name)
    except kubernetes_client.ApiException as error:
        if error.status == 404:
            return None
        raise


def wait_for_pool(objects, kind, name, deadline=PATIENCE):
    """Waits until a pool is full: only then is a claim certain to get one of its members."""

    def full():
        pool = found(objects, kind, name)
        return pool.get("status", {}).get("readyReplicas") == pool["spec"]["replicas"]

    eventually(full, deadline, f"the pool {name} is full")
