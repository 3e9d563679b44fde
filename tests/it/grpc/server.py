"""A gRPC server for the tests: generic handlers over bytes, no generated code.

    server.py VERSION

Says `PORT n` once it listens on 127.0.0.1, and ends when its standard input does. Every answer carries the version in its initial
metadata (`x-version`) and a trailer (`consumed-bytes`: how many bytes of messages came).
"""

import sys
import threading
from concurrent import futures

import grpc

MESSAGE_MAX = 64 * 1024 * 1024
WORKERS = 64
# Longest life of a call that waits for nothing but its end.
HOLD_SECONDS = 30
# What a call without a deadline has left, or more.
FOREVER_SECONDS = 10**6


class Service:
    def __init__(self, version):
        self.version = version
        self.lock = threading.Lock()
        self.cancelled = 0
        self.held = 0
        self.calls = 0

    def begin(self, context):
        with self.lock:
            self.calls += 1
        context.send_initial_metadata((("x-version", self.version),))

    def end(self, context, received):
        context.set_trailing_metadata((("consumed-bytes", str(received)),))

    def echo(self, request, context):
        self.begin(context)
        self.end(context, len(request))
        return request

    def sum(self, requests, context):
        self.begin(context)
        received = sum(len(request) for request in requests)
        self.end(context, received)
        return str(received).encode()

    def repeat(self, request, context):
        """`COUNT SIZE`: so many messages of so many bytes, each with its number in front."""
        self.begin(context)
        count, size = (int(word) for word in request.split())
        for number in range(count):
            yield (b"%d " % number).ljust(size, b"x")
        self.end(context, len(request))

    def chat(self, requests, context):
        self.begin(context)
        received = 0
        for request in requests:
            received += len(request)
            yield request.upper()
        self.end(context, received)

    def fail(self, request, context):
        """`CODE text`: an error before any message, which travels as trailers only."""
        code, text = request.decode().split(" ", 1)
        context.set_trailing_metadata((("consumed-bytes", str(len(request))), ("cause-bin", b"\x00\xff")))
        context.abort(grpc.StatusCode[code], text)

    def fail_late(self, request, context):
        """An error behind two messages."""
        self.begin(context)
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "lost behind two")

    def at_end(self, context):
        """What is set, and counted, when the client gives up."""
        gone = threading.Event()

        def over():
            with self.lock:
                self.cancelled += 1
            gone.set()

        if not context.add_callback(over):
            over()
        return gone

    def hold(self, request, context):
        """Answers nothing until the client gives up."""
        gone = self.at_end(context)
        with self.lock:
            self.held += 1
        gone.wait(HOLD_SECONDS)
        return b""

    def hold_stream(self, request, context):
        """One message, then nothing until the client gives up."""
        self.begin(context)
        # Before the message: whoever leaves right behind it ends this function there.
        gone = self.at_end(context)
        yield b"here"
        gone.wait(HOLD_SECONDS)

    def remaining(self, request, context):
        """How long the client would wait, in milliseconds; -1 without a deadline."""
        left = context.time_remaining()
        return str(-1 if left is None or left > FOREVER_SECONDS else int(left * 1000)).encode()

    def counts(self, request, context):
        with self.lock:
            return b"%d %d %d" % (self.calls, self.cancelled, self.held)

    def handlers(self):
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "tidegate.Test",
            {
                "Echo": unary(self.echo),
                "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
                "Repeat": stream(self.repeat),
                "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
                "Fail": unary(self.fail),
                "FailLate": stream(self.fail_late),
                "Hold": unary(self.hold),
                "HoldStream": stream(self.hold_stream),
                "Remaining": unary(self.remaining),
                "Counts": unary(self.counts),
            },
        )


def main():
    options = [("grpc.max_receive_message_length", MESSAGE_MAX), ("grpc.max_send_message_length", MESSAGE_MAX)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=WORKERS), options=options)
    server.add_generic_rpc_handlers((Service(sys.argv[1]).handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"PORT {port}", flush=True)
    sys.stdin.read()
    server.stop(grace=None)


if __name__ == "__main__":
    main()
