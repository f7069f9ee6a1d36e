"""A stock grpcio client reaches a stock grpcio server through the router with routing headers as metadata."""

import asyncio
import queue
from concurrent import futures

import grpc
import pytest

from eventually import PATIENCE
from service import NAME


def unary(channel, method):
    return channel.unary_unary(f"/{NAME}/{method}")


def test_a_call_brings_its_answer_and_metadata_at_both_ends(channel, route):
    answer, call = unary(channel, "Echo").with_call(b"hello", metadata=route, timeout=PATIENCE)
    assert answer == b"hello"
    assert call.code() == grpc.StatusCode.OK
    assert ("x-first", "1") in call.initial_metadata()
    assert ("x-last", "2") in call.trailing_metadata()
    assert ("x-bytes-bin", b"\x00\xff") in call.trailing_metadata()


def test_the_server_streams(channel, route):
    answers = channel.unary_stream(f"/{NAME}/Count")(b"1000", metadata=route, timeout=PATIENCE)
    assert list(answers) == [str(number).encode() for number in range(1000)]
    assert answers.code() == grpc.StatusCode.OK


def test_the_client_streams(channel, route):
    requests = (str(number).encode() for number in range(1000))
    answer = channel.stream_unary(f"/{NAME}/Join")(requests, metadata=route, timeout=PATIENCE)
    assert answer == b",".join(str(number).encode() for number in range(1000))


def test_both_stream_and_nothing_waits_for_more(channel, route):
    sent = queue.Queue()
    answers = channel.stream_stream(f"/{NAME}/Talk")(
        iter(sent.get, None), metadata=route, timeout=PATIENCE
    )
    for word in (b"one", b"two", b"three"):
        sent.put(word)
        assert next(answers) == b"you said " + word
    sent.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_a_status_arrives_with_its_text_and_trailers(channel, route):
    with pytest.raises(grpc.RpcError) as raised:
        unary(channel, "Fail")(b"", metadata=route, timeout=PATIENCE)
    error = raised.value
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "not möglich: 100 %"
    assert ("x-why", "because") in error.trailing_metadata()


def test_a_status_after_messages_arrives_after_them(channel, route):
    answers = channel.unary_stream(f"/{NAME}/FailLate")(b"", metadata=route, timeout=PATIENCE)
    assert next(answers) == b"one"
    with pytest.raises(grpc.RpcError) as raised:
        next(answers)
    assert raised.value.code() == grpc.StatusCode.DATA_LOSS


def test_a_deadline_reaches_the_server_and_ends_the_call_there(channel, route, server):
    call = unary(channel, "Wait").future(b"", metadata=route, timeout=3)
    begun, remaining = server.ended.get(timeout=PATIENCE)
    assert begun == "begun" and 0 < remaining < PATIENCE
    assert call.exception(timeout=PATIENCE).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.ended.get(timeout=PATIENCE) == ("gone", False)


def test_a_cancelled_call_is_cancelled_at_the_server(channel, route, server):
    call = unary(channel, "Wait").future(b"", metadata=route)
    begun, _ = server.ended.get(timeout=PATIENCE)
    assert begun == "begun"
    call.cancel()
    assert server.ended.get(timeout=PATIENCE) == ("gone", False)
    # Other calls of the connection go on.
    assert unary(channel, "Echo")(b"on", metadata=route, timeout=PATIENCE) == b"on"


def test_large_messages_pass_both_ways(channel, route):
    message = bytes(range(256)) * (48 * 1024)
    assert len(message) == 12 * 1024 * 1024
    assert unary(channel, "Echo")(message, metadata=route, timeout=PATIENCE) == message


def test_compressed_messages_pass(channel, route):
    message = b"again " * 100_000
    answer = unary(channel, "Echo")(
        message, metadata=route, timeout=PATIENCE, compression=grpc.Compression.Gzip
    )
    assert answer == message


def test_credentials_stop_at_the_router_and_the_rest_passes(channel, route):
    metadata = route + (("authorization", "Bearer secret"), ("x-custom", "yes"))
    seen = unary(channel, "Metadata")(b"", metadata=metadata, timeout=PATIENCE).decode()
    assert "x-custom: yes" in seen and "x-sandbox-id: box" in seen
    assert "x-forwarded-for: 127.0.0.1" in seen
    assert "secret" not in seen and "authorization" not in seen


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"x-sandbox-id": "nobody"}, grpc.StatusCode.NOT_FOUND),
        ({"x-sandbox-id": "No Name"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"x-sandbox-port": "0"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"x-sandbox-port": "1"}, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_what_the_router_refuses_is_a_grpc_status(channel, route, changes, code):
    metadata = tuple({**dict(route), **changes}.items())
    with pytest.raises(grpc.RpcError) as raised:
        unary(channel, "Echo")(b"", metadata=metadata, timeout=PATIENCE)
    assert raised.value.code() == code
    assert raised.value.details()


def test_many_calls_at_once_share_a_channel(channel, route):
    def talk(number):
        words = [f"{number}-{word}".encode() for word in range(20)]
        answers = channel.stream_stream(f"/{NAME}/Talk")(
            iter(words), metadata=route, timeout=PATIENCE
        )
        return list(answers) == [b"you said " + word for word in words]

    with futures.ThreadPoolExecutor(max_workers=100) as pool:
        assert all(pool.map(talk, range(200)))


def test_the_asyncio_client_works_too(router, route):
    async def call():
        async with grpc.aio.insecure_channel(router) as channel:
            method = channel.stream_stream(f"/{NAME}/Talk")

            async def words():
                yield b"a"
                yield b"b"

            answers = method(words(), metadata=route, timeout=PATIENCE)
            return [answer async for answer in answers]

    assert asyncio.run(call()) == [b"you said a", b"you said b"]
