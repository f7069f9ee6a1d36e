"""Create a sandbox, run a command in it, move a file, and give it back.

Needs two environment variables, which `agent-sandbox up -- python quickstart.py` sets:

  KUBECONFIG          where the sandboxes are managed
  SANDBOX_ROUTER_URL  where they are reached
"""

import os
import time

from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.models import SandboxDirectConnectionConfig

router = SandboxDirectConnectionConfig(api_url=os.environ["SANDBOX_ROUTER_URL"])

with SandboxClient(connection_config=router) as client:
    started = time.perf_counter()
    sandbox = client.create_sandbox(warmpool="python-pool")
    took = (time.perf_counter() - started) * 1000
    print(f"sandbox {sandbox.sandbox_id} is ready ({took:.0f} ms)")

    result = sandbox.commands.run("uname -sm")
    print(f"it runs on {result.stdout.strip()} (exit code {result.exit_code})")

    sandbox.files.write("notes/hello.txt", "Hello from outside!\n")
    print("it reads", sandbox.files.read("notes/hello.txt"))
    print("it lists", [entry.name for entry in sandbox.files.list("notes")])
    assert sandbox.files.exists("notes/hello.txt")

    counted = sandbox.commands.run("wc -c notes/hello.txt")
    print("it counts", counted.stdout.strip())

    sandbox.terminate()
    print("terminated; claims left:", client.list_all_sandboxes())
