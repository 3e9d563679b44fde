"""A gRPC client for the tests.

    client.py ADDRESS CA|- SCENARIO

Runs one scenario against ADDRESS, over TLS if CA is a file, and ends with 0 if everything was as it has to be; what was not is said on
standard error. `load` says `PROGRESS n` now and then and, at its end, `SERVED {version: calls}`.
"""

import collections
import queue
import sys
import threading
import time

import grpc

MESSAGE_MAX = 64 * 1024 * 1024
# Bound of every call that has no deadline of its own to test.
CALL_SECONDS = 20
# How late a deadline may be noticed on a busy machine.
LATE_SECONDS = 2.0
SERVICE = "/tidegate.Test/"


def channel(address, ca):
    options = [
        ("grpc.max_receive_message_length", MESSAGE_MAX),
        ("grpc.max_send_message_length", MESSAGE_MAX),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    if ca == "-":
        return grpc.insecure_channel(address, options)
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(address, credentials, options + [("grpc.ssl_target_name_override", "grpc.test")])


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(word) for word in what))


def metadata(pairs):
    return {key: value for key, value in pairs or ()}


def check_metadata(call, received):
    check(metadata(call.initial_metadata()).get("x-version"), "no x-version in", call.initial_metadata())
    trailers = metadata(call.trailing_metadata())
    check(trailers.get("consumed-bytes") == str(received), received, "bytes were sent, the trailers say", trailers)
    check(call.code() == grpc.StatusCode.OK, call.code(), call.details())


def unary(to):
    for message in (b"", b"hello", b"\x00\xff" * 1000):
        answer, call = to.unary_unary(SERVICE + "Echo").with_call(message, timeout=CALL_SECONDS)
        check(answer == message, "another message came back")
        check_metadata(call, len(message))


def client_streaming(to):
    answer, call = to.stream_unary(SERVICE + "Sum").with_call((b"x" * 1000 for _ in range(200)), timeout=CALL_SECONDS)
    check(answer == b"200000", answer)
    check_metadata(call, 200000)
    answer, call = to.stream_unary(SERVICE + "Sum").with_call(iter(()), timeout=CALL_SECONDS)
    check(answer == b"0", answer)


def server_streaming(to):
    call = to.unary_stream(SERVICE + "Repeat")(b"300 2000", timeout=CALL_SECONDS)
    for number, message in enumerate(call):
        check(message.startswith(b"%d " % number) and len(message) == 2000, "message", number, message[:20])
    check(number == 299, "the last was", number)
    check_metadata(call, len(b"300 2000"))


def bidirectional(to):
    """Each message is sent only once the answer to the last one is there: nothing on the way may wait for more."""
    outgoing = queue.Queue()
    call = to.stream_stream(SERVICE + "Chat")(iter(outgoing.get, None), timeout=CALL_SECONDS)
    sent = 0
    for number in range(100):
        message = b"turn %d" % number
        outgoing.put(message)
        sent += len(message)
        check(next(call) == message.upper(), "turn", number)
    outgoing.put(None)
    check(list(call) == [], "more messages than were sent")
    check_metadata(call, sent)


def many_streams(to):
    """Streams of one connection do not wait for each other: while one is not read, the others go on."""
    stuck = to.unary_stream(SERVICE + "Repeat")(b"2000 65536", timeout=CALL_SECONDS)
    next(stuck)
    for number in range(50):
        message = b"%d" % number
        check(to.unary_unary(SERVICE + "Echo")(message, timeout=CALL_SECONDS) == message, "call", number)
    stuck.cancel()


def expect_error(code, function):
    try:
        function()
    except grpc.RpcError as error:
        check(error.code() == code, "expected", code, "not", error.code(), error.details())
        return error
    raise AssertionError(f"no error, but {code} was expected")


def errors(to):
    fail = to.unary_unary(SERVICE + "Fail")
    for code, text in (("NOT_FOUND", "nothing here"), ("INVALID_ARGUMENT", "50 % é \u2603"), ("INTERNAL", "x" * 1000)):
        request = f"{code} {text}".encode()
        error = expect_error(grpc.StatusCode[code], lambda: fail(request, timeout=CALL_SECONDS))
        check(error.details() == text, error.details(), "instead of", text)
        trailers = metadata(error.trailing_metadata())
        check(trailers.get("consumed-bytes") == str(len(request)), trailers)
        check(trailers.get("cause-bin") == b"\x00\xff", trailers)
    late = to.unary_stream(SERVICE + "FailLate")(b"", timeout=CALL_SECONDS)
    seen = []
    error = expect_error(grpc.StatusCode.DATA_LOSS, lambda: seen.extend(late))
    check(error.details() == "lost behind two", error.details())
    late = to.unary_stream(SERVICE + "FailLate")(b"", timeout=CALL_SECONDS)
    check([next(late), next(late)] == [b"one", b"two"], "the messages before the error were lost")
    error = expect_error(grpc.StatusCode.UNIMPLEMENTED, lambda: to.unary_unary(SERVICE + "None")(b"", timeout=CALL_SECONDS))


def counts(to):
    return [int(word) for word in to.unary_unary(SERVICE + "Counts")(b"", timeout=CALL_SECONDS).split()]


def wait_for_more(to, which, before, otherwise):
    deadline = time.monotonic() + CALL_SECONDS
    while counts(to)[which] <= before:
        check(time.monotonic() < deadline, otherwise)
        time.sleep(0.01)


def wait_for_cancelled(to, before):
    wait_for_more(to, 1, before, "the server was never told that the call is over")


def deadlines(to):
    left = int(to.unary_unary(SERVICE + "Remaining")(b"", timeout=5))
    check(1000 < left <= 5000, "of 5 s the server saw", left, "ms")
    check(int(to.unary_unary(SERVICE + "Remaining")(b"")) == -1, "a deadline that nobody set")
    for method in (to.unary_unary(SERVICE + "Hold"), lambda *a, **k: list(to.unary_stream(SERVICE + "HoldStream")(*a, **k))):
        before, began = counts(to)[1], time.monotonic()
        expect_error(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: method(b"", timeout=0.4))
        took = time.monotonic() - began
        check(0.35 <= took <= 0.4 + LATE_SECONDS, "a deadline of 0.4 s took", took)
        wait_for_cancelled(to, before)


def cancellation(to):
    before = counts(to)[1]
    call = to.unary_stream(SERVICE + "HoldStream")(b"")
    check(next(call) == b"here", "the first message")
    call.cancel()
    wait_for_cancelled(to, before)
    _, before, held = counts(to)
    call = to.unary_unary(SERVICE + "Hold").future(b"")
    # It has to have reached the server, or there would be nothing to cancel there.
    wait_for_more(to, 2, held, "the call never came to the server")
    call.cancel()
    check(call.cancelled(), "not cancelled")
    wait_for_cancelled(to, before)


def large(to):
    """Many times every window, both ways."""
    message = bytes(range(256)) * (32 * 4096)
    answer, call = to.unary_unary(SERVICE + "Echo").with_call(message, timeout=3 * CALL_SECONDS)
    check(answer == message, "another message came back")
    check_metadata(call, len(message))
    total = 0
    for message in to.unary_stream(SERVICE + "Repeat")(b"16 1048576", timeout=3 * CALL_SECONDS):
        total += len(message)
        time.sleep(0.005)
    check(total == 16 * 1048576, total)
    answer = to.stream_unary(SERVICE + "Sum")((b"x" * 1048576 for _ in range(16)), timeout=3 * CALL_SECONDS)
    check(answer == b"%d" % (16 * 1048576), answer)


def load(to, calls=1000, at_once=8):
    """So many calls; every single one has to be answered."""
    served, lost, lock = collections.Counter(), [], threading.Lock()
    numbers = iter(range(calls))
    echo = to.unary_unary(SERVICE + "Echo")

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            message = b"call %d" % number
            try:
                answer, call = echo.with_call(message, timeout=CALL_SECONDS)
                check(answer == message, "another message came back")
                version = metadata(call.initial_metadata()).get("x-version")
                with lock:
                    served[version] += 1
                    if number % 50 == 0:
                        print(f"PROGRESS {number}", flush=True)
            except Exception as error:
                with lock:
                    lost.append(repr(error))
            # A pace that leaves time for the changes of the test.
            time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not lost, len(lost), "calls were lost, the first:", lost[:1])
    check(sum(served.values()) == calls, served)
    print("SERVED " + " ".join(f"{version}={count}" for version, count in sorted(served.items())), flush=True)


SCENARIOS = {
    function.__name__: function
    for function in (
        unary, client_streaming, server_streaming, bidirectional, many_streams, errors, deadlines, cancellation, large, load,
    )
}


def main():
    address, ca, name = sys.argv[1:]
    with channel(address, ca) as to:
        try:
            SCENARIOS[name](to)
        except (AssertionError, grpc.RpcError, StopIteration) as error:
            print(f"{name}: {error!r}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
