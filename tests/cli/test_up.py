"""`agent-sandbox up`: start, stop, and what it leaves behind."""

import concurrent.futures
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest
import urllib3
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from eventually import PATIENCE, eventually
from platform_process import BINARY, EXAMPLES, Platform, assert_all_gone

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
    assert platform.process.wait(PATIENCE) == 0
    assert_all_gone(processes)
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} still answers"
    assert not platform.state_dir.exists(), "a kubeconfig of nothing is a trap"


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="nothing here drops root's rights")
def test_an_ordinary_user_gets_sandboxes_and_keeps_a_clean_home():
    """Root is nowhere needed, and nothing is written but the state directory."""
    root = os.geteuid() == 0
    # Not below the test's own directory, whose parents may be closed to others.
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        place.chmod(0o755)
        program = pathlib.Path(shutil.copy(BINARY, place / "agent-sandbox"))
        manifests = [shutil.copy(EXAMPLES / file, place) for file in ("template.yaml", "pool.yaml")]
        own = {purpose: place / purpose for purpose in ("home", "temp", "run", "states")}
        for directory in own.values():
            directory.mkdir(mode=0o700)
            if root:
                os.chown(directory, 65534, 65534)
        drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] if root else []
        with Platform(
            own["states"] / "state",
            "--apply",
            *manifests,
            program=[*drop, program],
            environment={"HOME": own["home"], "TMPDIR": own["temp"], "XDG_RUNTIME_DIR": own["run"]},
        ) as platform:
            api = objects(platform.wait_ready())
            ready_pool(api)
            where = ("extensions.agents.x-k8s.io", "v1beta1", "default", "sandboxclaims")
            body = {
                "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
                "kind": "SandboxClaim",
                "metadata": {"name": "c"},
                "spec": {"warmPoolRef": {"name": "python-pool"}},
            }
            api.create_namespaced_custom_object(*where, body)

            def bound():
                status = api.get_namespaced_custom_object(*where, "c").get("status", {})
                ready = any(it["type"] == "Ready" and it["status"] == "True" for it in status.get("conditions", ()))
                return ready and status["sandbox"]["name"]

            answer = urllib3.request(
                "POST",
                platform.exported("SANDBOX_ROUTER_URL") + "/execute",
                headers={"X-Sandbox-ID": eventually(bound, message="the claim is ready")},
                json={"command": "echo done"},
                retries=False,
                timeout=PATIENCE,
            )
            assert (answer.status, answer.json()["stdout"]) == (200, "done\n"), answer.data
            processes = platform.descendants()
            platform.process.send_signal(signal.SIGTERM)
            assert platform.process.wait(PATIENCE) == 0
        assert_all_gone(processes)
        left = [path for directory in own.values() for path in directory.rglob("*")]
        assert not left, "what it wrote is gone"


def test_a_signal_during_the_start_leaves_nothing(start):
    platform = start(*MANIFESTS)
    eventually((platform.state_dir / "lock").exists, message="the start is under way")
    platform.process.send_signal(signal.SIGTERM)
    assert platform.process.wait(PATIENCE) == 0
    assert not platform.state_dir.exists()


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
        except (kubernetes_client.ApiException, urllib3.exceptions.HTTPError):
            pass  # The server is killed under this very call.

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
    assert second.process.wait(PATIENCE) == 1
    holder = f"in use by process {first.process.pid}"
    eventually(lambda: any(holder in line for line in second.errors), message="the holder is named")
    assert "--state-dir" in "\n".join(second.errors)


def run(*arguments, **options):
    return subprocess.run(
        [BINARY, *[str(argument) for argument in arguments]],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
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
        assert platform.process.wait(PATIENCE) == 9


def test_a_command_that_cannot_run_is_named_before_anything_starts(tmp_path):
    data = tmp_path / "data"
    data.write_text("no program")
    for program, status, remedy in (("no-such-program", 127, "on the PATH"), (str(data), 126, "chmod +x")):
        result = up(tmp_path / "state", "--", program)
        assert result.returncode == status
        assert result.stderr.startswith(f'error: COMMAND "{program}": ') and remedy in result.stderr, result.stderr
        assert len(result.stderr.splitlines()) == 1 and not result.stdout
        assert not (tmp_path / "state").exists()


def test_a_port_in_use_is_named_with_the_flag(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag, other in (("--router-port", "--api-port"), ("--api-port", "--router-port")):
            result = run("up", "--state-dir", tmp_path, flag, port, other, 0)
            assert result.returncode == 1
            assert flag in result.stderr and f"port {port} is in use" in result.stderr
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--router-port", "99999"], "--router-port"),
        (["--api-port", "http"], "--api-port"),
        (["--state-dir", __file__], f"--state-dir: cannot use {__file__}; choose a directory"),
        (["--apply", "/"], "--apply /: cannot read the file"),
        (["--router-port", "7000", "--api-port", "7000"], "7000"),
        (["--log-filter", "a=b=c"], "--log-filter"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--state-dir", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_bad_flags_are_named(arguments, expected):
    result = run("up", *arguments)
    assert result.returncode != 0 and expected in result.stderr, result.stderr


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write anywhere")
def test_a_state_directory_one_may_not_write_to_is_named():
    drop = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    command = [*drop, BINARY, "up", "--state-dir", "/usr/agent-sandbox", "--router-port=0", "--api-port=0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 1
    assert "--state-dir: cannot use /usr/agent-sandbox; choose a directory" in result.stderr, result.stderr


POOL = (
    "apiVersion: extensions.agents.x-k8s.io/v1beta1\nkind: SandboxWarmPool\nmetadata: {name: a}\n"
    "spec: {%s, sandboxTemplateRef: {name: x}}\n"
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [", ": not YAML: line 1"),
        ("just text", ", document 1: not a Kubernetes object"),
        ("# nothing\n", ": there is no object in the file"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "metadata.name is required"),
        ("apiVersion: v1\nkind: Pot\nmetadata: {name: a}\n", "Pot a: this API server has no Pot in v1; correct"),
        ("apiVersion: x.io/v1\nkind: Pod\nmetadata: {name: a}\n", "Pod a: this API server has no Pod in x.io/v1"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: absent}\n",
            'ConfigMap a: namespaces "absent" not found',
        ),
        (POOL % "replicas: -1", "SandboxWarmPool a: "),
        (POOL % "replicas: -1", "spec.replicas: Invalid value: -1"),
        (POOL % "replica: 1", "spec.replica"),
    ],
    ids=["syntax", "text", "empty", "no name", "kind", "group", "namespace", "whose", "value", "field"],
)
def test_a_manifest_that_cannot_be_applied_is_named(tmp_path, content, expected):
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(content)
    result = up(tmp_path / "state", "--apply", manifest)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: --apply {manifest}") and expected in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and "Status {" not in result.stderr, result.stderr
    assert not (tmp_path / "state").exists()


def test_a_definition_and_its_objects_are_applied_from_one_file(tmp_path):
    manifest = tmp_path / "baskets.yaml"
    manifest.write_text(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: baskets.example.com}\n"
        "spec:\n  group: example.com\n  scope: Namespaced\n  names: {kind: Basket, plural: baskets, singular: basket}\n"
        "  versions:\n  - name: v1\n    served: true\n    storage: true\n    schema: {openAPIV3Schema: {type: object}}\n"
        "---\napiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: example.com/v1, kind: Basket, metadata: {name: fruit}}\n"
    )
    result = up(tmp_path / "state", "--apply", manifest, "--", "true")
    assert result.returncode == 0, result.stderr


def test_an_absent_manifest_is_named(tmp_path):
    result = up(tmp_path / "state", "--apply", "no-such-file.yaml")
    assert result.returncode == 1 and "--apply no-such-file.yaml: cannot read the file" in result.stderr
    assert not (tmp_path / "state").exists()


def test_help_lists_the_flags():
    text = run("up", "--help").stdout
    for flag in ("--state-dir", "--router-port", "--api-port", "--keep", "--apply", "COMMAND"):
        assert flag in text
