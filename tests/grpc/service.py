"""A service with every kind of call, of plain bytes, so that no generated code is needed."""

import queue
import threading

import grpc

NAME = "test.Service"


class Service:
    """Plays the service and keeps what tests look at."""

    def __init__(self):
        self.port = None
        self.ended = queue.Queue()

    def handlers(self):
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
                "Count": grpc.unary_stream_rpc_method_handler(self.count),
                "Join": grpc.stream_unary_rpc_method_handler(self.join),
                "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
                "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
                "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
                "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
                "Metadata": grpc.unary_unary_rpc_method_handler(self.metadata),
            },
        )

    def echo(self, request, context):
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"), ("x-bytes-bin", b"\x00\xff")))
        return request

    def count(self, request, _context):
        for number in range(int(request)):
            yield str(number).encode()

    def join(self, requests, _context):
        return b",".join(requests)

    def talk(self, requests, _context):
        for request in requests:
            yield b"you said " + request

    def fail(self, _request, context):
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not möglich: 100 %")

    def fail_late(self, _request, context):
        yield b"one"
        context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    def wait(self, _request, context):
        """Waits for the caller to go away, and says when it has."""
        gone = threading.Event()
        context.add_callback(gone.set)
        self.ended.put(("begun", context.time_remaining()))
        gone.wait()
        self.ended.put(("gone", context.is_active()))
        return b""

    def metadata(self, _request, context):
        return "\n".join(f"{key}: {value}" for key, value in context.invocation_metadata()).encode()
