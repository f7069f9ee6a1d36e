"""`agent-sandbox up`: start, stop, and what it leaves behind."""

import concurrent.futures
import signal
import socket
import subprocess
import sys

import pytest
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from platform_process import BINARY, EXAMPLES, Platform, assert_all_gone, eventually

MANIFESTS = ["--apply", EXAMPLES / "template.yaml", EXAMPLES / "pool.yaml"]


def objects(platform):
    """The custom objects API of a running platform."""
    loaded = kubernetes_config.new_client_from_config(platform.exported("KUBECONFIG"))
    return kubernetes_client.CustomObjectsApi(loaded)


def ready_pool(api, name="python-pool", replicas=2):
    def ready():
        pool = api.get_namespaced_custom_object(
            "extensions.agents.x-k8s.io", "v1beta1", "default", "sandboxwarmpools", name
        )
        return pool.get("status", {}).get("readyReplicas") == replicas

    eventually(ready, message=f"{replicas} members of {name} are ready")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_nothing_is_left(start, number):
    platform = start(*MANIFESTS).wait_ready()
    ready_pool(objects(platform))
    processes, ports = platform.descendants(), platform.ports()
    assert processes, "two sandboxes run as processes"
    assert len(ports) == 2

    platform.process.send_signal(number)
    assert platform.process.wait(60) == 0
    assert_all_gone(processes, deadline=5)
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} still answers"
    assert not (platform.state_dir / "kubeconfig").exists(), "a kubeconfig of nothing is a trap"
    assert not (platform.state_dir / "node").exists()


def test_kill_9_leaves_no_process_and_the_next_run_works(start):
    platform = start(*MANIFESTS).wait_ready()
    api = objects(platform)
    ready_pool(api)

    def create(number):
        body = {
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
            "kind": "SandboxClaim",
            "metadata": {"name": f"burst-{number}"},
            "spec": {"warmPoolRef": {"name": "python-pool"}},
        }
        try:
            api.create_namespaced_custom_object(
                "extensions.agents.x-k8s.io", "v1beta1", "default", "sandboxclaims", body
            )
        except Exception:  # noqa: BLE001 - the server is killed under this very call
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        burst = [pool.submit(create, number) for number in range(20)]
        eventually(lambda: sum(job.done() for job in burst) >= 5, message="the burst is under way")
        processes = platform.descendants()
        platform.process.kill()
        platform.process.wait()
    assert processes
    assert_all_gone(processes)

    again = start(*MANIFESTS).wait_ready()
    ready_pool(objects(again))
    third = start(*MANIFESTS, state="clean").wait_ready()
    ready_pool(objects(third))


def test_two_platforms_run_side_by_side(start):
    first, second = (start(*MANIFESTS, state=name).wait_ready() for name in ("one", "two"))
    ready_pool(objects(first))
    ready_pool(objects(second))


def test_one_state_directory_has_one_holder(start):
    first = start().wait_ready()
    second = start()
    assert second.process.wait(30) == 1
    errors = "\n".join(second.errors)
    eventually(lambda: second.errors, 5, "the error is printed")
    errors = "\n".join(second.errors)
    assert f"in use by process {first.process.pid}" in errors and "--state-dir" in errors


def run(*arguments, **options):
    return subprocess.run(
        [BINARY, *[str(argument) for argument in arguments]],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )


def up(tmp_path, *arguments):
    return run("up", "--state-dir", tmp_path, "--router-port", 0, "--api-port", 0, *arguments)


def test_a_command_runs_with_the_environment_and_its_status_is_ours(tmp_path):
    script = (
        "import os, sys, urllib.request, urllib.error\n"
        "assert os.path.isfile(os.environ['KUBECONFIG'])\n"
        "try:\n"
        "    urllib.request.urlopen(os.environ['SANDBOX_ROUTER_URL'])\n"
        "except urllib.error.HTTPError as answer:\n"
        "    print(answer.code, answer.read().decode())\n"
        "sys.exit(7)\n"
    )
    result = up(tmp_path, "--", sys.executable, "-c", script)
    assert result.returncode == 7, result.stderr
    assert result.stdout == '400 {"detail":"X-Sandbox-ID header is required."}\n'


def test_a_command_killed_by_a_signal_reports_it_as_a_shell_does(tmp_path):
    assert up(tmp_path, "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_signals_reach_the_command(tmp_path):
    with Platform(tmp_path, "--", "sh", "-c", "trap 'exit 9' TERM; echo waiting; while :; do sleep 0.1; done") as platform:
        eventually(lambda: "waiting" in platform.lines, message="the command runs")
        platform.process.send_signal(signal.SIGTERM)
        assert platform.process.wait(60) == 9


def test_a_command_that_is_not_there_is_named(tmp_path):
    result = up(tmp_path, "--", "no-such-program")
    assert result.returncode == 1 and "no-such-program" in result.stderr


def test_a_port_in_use_is_named_with_the_flag(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag, other in (("--router-port", "--api-port"), ("--api-port", "--router-port")):
            result = run("up", "--state-dir", tmp_path, flag, port, other, 0)
            assert result.returncode == 1
            assert flag in result.stderr and f"port {port} is in use" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--router-port", "99999"], "--router-port"),
        (["--router-port", "7000", "--api-port", "7000"], "7000"),
        (["--log-filter", "a=b=c"], "--log-filter"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--state-dir", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_bad_flags_are_named(arguments, expected):
    result = run("up", *arguments)
    assert result.returncode != 0 and expected in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [", "not YAML"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "metadata.name"),
        ("apiVersion: v1\nkind: Pot\nmetadata: {name: a}\n", "Pot"),
        (
            "apiVersion: extensions.agents.x-k8s.io/v1beta1\nkind: SandboxWarmPool\n"
            "metadata: {name: a}\nspec: {replicas: -1, sandboxTemplateRef: {name: x}}\n",
            "spec.replicas",
        ),
        (
            "apiVersion: extensions.agents.x-k8s.io/v1beta1\nkind: SandboxWarmPool\n"
            "metadata: {name: a}\nspec: {replica: 1, sandboxTemplateRef: {name: x}}\n",
            "spec.replica",
        ),
    ],
    ids=["syntax", "no name", "unknown kind", "bad value", "unknown field"],
)
def test_a_manifest_that_cannot_be_applied_is_named(tmp_path, content, expected):
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(content)
    result = up(tmp_path / "state", "--apply", manifest)
    assert result.returncode == 1
    assert str(manifest) in result.stderr and expected in result.stderr, result.stderr


def test_an_absent_manifest_is_named(tmp_path):
    result = up(tmp_path, "--apply", "no-such-file.yaml")
    assert result.returncode == 1 and "no-such-file.yaml" in result.stderr


def test_help_lists_the_flags():
    text = run("up", "--help").stdout
    for flag in ("--state-dir", "--router-port", "--api-port", "--apply", "COMMAND"):
        assert flag in text
