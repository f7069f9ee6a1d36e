"""A hundred claims at once against a pool of a hundred."""

import asyncio

import pytest
from kubernetes import client as kubernetes_client

from conftest import EXTENSIONS, POOLS, SANDBOXES, wait_for_pool
from eventually import eventually
from sdk_platform import NAMESPACE

SIZE = 100


@pytest.fixture
def pool_of_a_hundred(objects):
    body = {
        "apiVersion": f"{EXTENSIONS}/v1beta1",
        "kind": "SandboxWarmPool",
        "metadata": {"name": "hundred"},
        "spec": {"replicas": SIZE, "sandboxTemplateRef": {"name": "runtime"}},
    }
    objects.create_namespaced_custom_object(*POOLS, body)
    wait_for_pool(objects, "hundred", deadline=600)
    yield "hundred"
    try:
        objects.delete_namespaced_custom_object(*POOLS, "hundred")
    except kubernetes_client.ApiException as error:
        assert error.status == 404


async def test_every_claim_gets_its_own_sandbox_and_nothing_remains(async_client, pool_of_a_hundred, objects, core):
    sandboxes = await asyncio.gather(
        *(async_client.create_sandbox(pool_of_a_hundred, sandbox_ready_timeout=600) for _ in range(SIZE))
    )
    assert len({sandbox.sandbox_id for sandbox in sandboxes}) == SIZE, "none is shared"
    claims = set(await async_client.list_all_sandboxes())
    assert {sandbox.claim_name for sandbox in sandboxes} <= claims, "none is lost"
    answers = await asyncio.gather(
        *(sandbox.commands.run(f"echo {sandbox.sandbox_id}", timeout=180) for sandbox in sandboxes)
    )
    assert [answer.stdout.strip() for answer in answers] == [sandbox.sandbox_id for sandbox in sandboxes]

    await asyncio.to_thread(objects.delete_namespaced_custom_object, *POOLS, pool_of_a_hundred)
    await async_client.delete_all()
    names = {sandbox.sandbox_id for sandbox in sandboxes}

    def gone():
        left = objects.list_namespaced_custom_object(*SANDBOXES)["items"]
        pods = core.list_namespaced_pod(NAMESPACE).items
        held = {item["metadata"]["name"] for item in left} | {pod.metadata.name for pod in pods}
        return not {name for name in held if name in names or name.startswith("hundred-")}

    # The pool refilled meanwhile: two hundred pods go, and a busy node takes a second for each.
    await asyncio.to_thread(eventually, gone, 600.0)
