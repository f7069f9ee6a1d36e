"""The runtime's own service through the router, with the stubs that the SDK publishes: a service of gRPC needs
nothing but routing metadata to be reached."""

from concurrent import futures

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from k8s_agent_sandbox.commands._process_stubs import process_pb2 as pb
from k8s_agent_sandbox.commands._process_stubs import process_pb2_grpc

from eventually import PATIENCE, eventually


@pytest.fixture
def service(channel):
    return process_pb2_grpc.ProcessServiceStub(channel)


@pytest.fixture
def call(service, runtime):
    """Calls a method of the service with the metadata that leads to the runtime."""

    def call(method, request, **options):
        options = {"timeout": PATIENCE, **options}
        return getattr(service, method)(request, metadata=runtime.route, **options)

    return call


def sh(script, **config):
    return pb.ProcessConfig(command=["/bin/sh", "-c", script], **config)


def execute(call, script, **config):
    return call("Execute", pb.ExecuteRequest(config=sh(script, **config)))


def seen(events):
    """The number, both outputs and the exit of a `Start`."""
    number, outputs, code = None, {"stdout": b"", "stderr": b""}, None
    for event in events:
        assert code is None, "nothing follows the exit"
        kind = event.WhichOneof("event")
        if kind == "init":
            assert number is None and not any(outputs.values())
            number = event.init.process_id
        elif kind == "exit":
            code = event.exit.exit_code
        else:
            outputs[kind] += getattr(event, kind)
    return number, outputs["stdout"], outputs["stderr"], code


def test_execute(call):
    answer = execute(call, "echo out; echo err >&2; exit 3")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 3)
    answer = execute(call, "echo $A; pwd", env_vars={"A": "b c"}, cwd="/")
    assert answer.stdout.startswith(b"b c\n/")


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (pb.ProcessConfig(), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.ProcessConfig(command=["no-such-program"]), grpc.StatusCode.NOT_FOUND),
        (pb.ProcessConfig(command=["true"], cwd="../.."), grpc.StatusCode.PERMISSION_DENIED),
        (pb.ProcessConfig(command=["true"], cwd="none"), grpc.StatusCode.NOT_FOUND),
        (pb.ProcessConfig(command=["true"], env_vars={"=": ""}), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_cannot_be_run(call, config, code):
    with pytest.raises(grpc.RpcError) as raised:
        call("Execute", pb.ExecuteRequest(config=config))
    assert raised.value.code() == code and raised.value.details()


def test_start_with_input(call):
    events = call("Start", pb.StartRequest(config=pb.ProcessConfig(command=["cat"])))
    number = next(events).init.process_id
    assert number > 0
    for text in (b"one\n", b"two\n"):
        call("WriteStdin", pb.WriteStdinRequest(process_id=number, input=text))
        assert next(events).stdout == text
    call("WriteStdin", pb.WriteStdinRequest(process_id=number, eof={}))
    assert seen(events) == (None, b"", b"", 0)


def test_start_with_signals(call):
    for signal, code in ((pb.SIGNAL_SIGTERM, 143), (pb.SIGNAL_SIGKILL, 137), (pb.SIGNAL_SIGINT, 130)):
        events = call("Start", pb.StartRequest(config=pb.ProcessConfig(command=["sleep", "1000"])))
        number = next(events).init.process_id
        call("SendSignal", pb.SendSignalRequest(process_id=number, signal=signal))
        assert seen(events) == (None, b"", b"", code)
    with pytest.raises(grpc.RpcError) as raised:
        call("SendSignal", pb.SendSignalRequest(process_id=number, signal=pb.SIGNAL_UNSPECIFIED))
    assert raised.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def test_start_at_a_terminal(call):
    request = pb.StartRequest(config=pb.ProcessConfig(command=["stty", "size"]), pty=pb.PTY(cols=80, rows=24))
    number, stdout, stderr, code = seen(call("Start", request))
    assert (stdout, stderr, code) == (b"24 80\r\n", b"", 0) and number > 0
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    events = call("Start", pb.StartRequest(config=sh(script), pty=pb.PTY(cols=80, rows=24)))
    number = next(events).init.process_id
    assert next(events).stdout == b"ready\r\n"
    call("ResizeTTY", pb.ResizeTTYRequest(process_id=number, cols=132, rows=50))
    assert seen(events)[1:] == (b"50 132\r\n", b"", 0)


def test_output_streams_while_the_command_runs(call):
    events = call("Start", pb.StartRequest(config=sh("echo first; read line; echo $line")))
    number = next(events).init.process_id
    assert next(events).stdout == b"first\n"
    call("WriteStdin", pb.WriteStdinRequest(process_id=number, input=b"second\n"))
    assert seen(events) == (None, b"second\n", b"", 0)


def test_a_cancelled_call_ends_the_command(call, runtime):
    events = call("Start", pb.StartRequest(config=sh("setsid sleep 1000 & sleep 1000")))
    assert next(events).init.process_id > 0
    eventually(lambda: runtime.running() == 2, PATIENCE, "both sleep")
    events.cancel()
    eventually(lambda: runtime.running() == 0, PATIENCE, "both are gone")


def test_a_deadline_ends_the_command(call, runtime):
    with pytest.raises(grpc.RpcError) as raised:
        call("Execute", pb.ExecuteRequest(config=sh("setsid sleep 1000 & sleep 1000")), timeout=1)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: runtime.running() == 0, PATIENCE, "both are gone")


def test_a_client_that_does_not_read_holds_the_command_back(call, runtime):
    events = call("Start", pb.StartRequest(config=sh("head -c 100000000 /dev/zero; touch written")))
    assert next(events).init.process_id > 0
    assert next(events).stdout
    # Nothing moves any more when the file does not come, while others are served.
    for _ in range(20):
        assert execute(call, "ls").stdout.find(b"written") < 0
    assert sum(len(event.stdout) for event in events if event.WhichOneof("event") == "stdout") > 99_000_000
    eventually(lambda: b"written" in execute(call, "ls").stdout, PATIENCE, "it goes on")


def test_many_share_a_channel(call):
    def one(number):
        return execute(call, f"echo {number}; exit {number % 200}")

    with futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(one, range(200)))
    assert [(answer.stdout, answer.exit_code) for answer in answers] == [
        (f"{number}\n".encode(), number % 200) for number in range(200)
    ]


def test_a_token_reaches_the_runtime_through_the_router(channel, guarded):
    stub = process_pb2_grpc.ProcessServiceStub(channel)
    request = pb.ExecuteRequest(config=sh("echo let in"))
    for metadata in ((), (("authorization", "Bearer hush"),), (("x-access-token", "wrong"),)):
        with pytest.raises(grpc.RpcError) as raised:
            stub.Execute(request, metadata=guarded.route + metadata, timeout=PATIENCE)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    metadata = guarded.route + (("x-access-token", "hush"),)
    assert stub.Execute(request, metadata=metadata, timeout=PATIENCE).stdout == b"let in\n"


def test_health(channel, runtime):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "process.v1.ProcessService"):
        request = health_pb2.HealthCheckRequest(service=name)
        answer = health.Check(request, metadata=runtime.route, timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_what_the_sdk_was_made_from(runtime):
    """Straight to the runtime: the library for reflection sends no metadata."""
    with grpc.insecure_channel(runtime.address) as channel:
        known = ProtoReflectionDescriptorDatabase(channel)
        assert "process.v1.ProcessService" in known.get_services()
        file = known.FindFileContainingSymbol("process.v1.ProcessService")
    described = {
        (message.name, field.name, field.number, field.type, field.label)
        for message in file.message_type
        for field in message.field
    }
    published = {
        (message.name, field.name, field.number, field.type, field.label)
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in descriptor(message).field
    }
    assert described == published
    methods = {(method.name, method.server_streaming) for method in file.service[0].method}
    assert methods == {
        ("Start", True), ("Execute", False), ("WriteStdin", False), ("SendSignal", False), ("ResizeTTY", False)
    }


def descriptor(message):
    copy = descriptor_pb2.DescriptorProto()
    message.CopyToProto(copy)
    return copy
