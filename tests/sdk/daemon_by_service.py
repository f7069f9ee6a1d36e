"""Uses a sandbox by the name of its Service: `daemon_by_service.py HOSTS CLAIM`, with HOSTS in the place of
/etc/hosts."""

import ctypes
import os
import sys

import daemon_checks
from k8s_agent_sandbox import SandboxClient
from k8s_agent_sandbox.models import SandboxdInClusterConnectionConfig

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000


def take_hosts(file):
    """Puts the file in the place of /etc/hosts, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result, what):
        if result != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{what}: {os.strerror(error)}")

    if os.geteuid() != 0:
        check(libc.unshare(CLONE_NEWUSER), "unshare")
    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    check(libc.mount(file.encode(), b"/etc/hosts", None, MS_BIND, None), "mount")


def main(hosts, claim):
    take_hosts(hosts)
    config = SandboxdInClusterConnectionConfig(mode="in-cluster-service")
    with SandboxClient(connection_config=config) as client:
        sandbox = client.get_sandbox(claim)
        sandbox.files.write("sub/here", "")
        daemon_checks.commands(sandbox)
        daemon_checks.files(sandbox)
    print("by the name of the Service: commands, files")


main(*sys.argv[1:])
