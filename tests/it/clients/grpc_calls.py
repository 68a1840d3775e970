"""grpcio's own server and client, with whatever is to be tried between them.

    grpc_calls.py serve [CERT KEY]        prints its port; ends with its standard input
    grpc_calls.py call ADDRESS [CA]       exits 0 when everything behaved as without a proxy
    grpc_calls.py unavailable ADDRESS     exits 0 when a call fails as UNAVAILABLE

Methods are generic handlers over bytes: no code is generated.
"""

import concurrent.futures
import sys
import threading
import time

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "try.Out"
LARGE = 1 << 20
CALLS = 1000
# For what happens by itself, on a machine that has other things to do.
PATIENCE = 10

# What the server noticed of calls that ended early: name -> event.
cancelled = {"sleep": threading.Event(), "forever": threading.Event()}


# === the server ===


def echo(request, context):
    """Sends the message back, and the client's metadata as initial and trailing metadata."""
    given = [(k, v) for k, v in context.invocation_metadata() if k.startswith("x-")]
    context.send_initial_metadata(given)
    context.set_trailing_metadata(given + [("x-trailer", "1"), ("x-trailer", "2")])
    return request


def fail(request, context):
    """Fails with the status of that number, and a message that has to be escaped on its way."""
    code = next(code for code in grpc.StatusCode if code.value[0] == int(request))
    context.set_trailing_metadata([("x-why-bin", b"\x00\xff\x01")])
    context.abort(code, f"no {code.name} is 100 % like «another»\n")


def fail_late(request, context):
    """Fails when some messages are out already."""
    yield b"1"
    yield b"2"
    context.abort(grpc.StatusCode.DATA_LOSS, "late")


def left(request, context):
    """Tells how much time the client gave, in milliseconds."""
    return str(int(context.time_remaining() * 1000)).encode()


def sleep(request, context):
    """Answers long after the client's deadline."""
    context.add_callback(cancelled["sleep"].set)
    cancelled["sleep"].wait(PATIENCE)
    return b"late"


def forever(request, context):
    """Streams until the client is gone."""
    context.add_callback(cancelled["forever"].set)
    number = 0
    while context.is_active():
        number += 1
        yield str(number).encode()
        time.sleep(0.005)


def noticed(request, context):
    """Tells whether the server noticed the end of calls to that method."""
    return b"yes" if cancelled[request.decode()].wait(PATIENCE) else b"no"


def count(request, context):
    """Streams so many messages of that size."""
    messages, size = map(int, request.split())
    for number in range(messages):
        yield str(number).encode().ljust(size, b".")


def total(requests, context):
    """Reads messages to their end."""
    messages = [len(request) for request in requests]
    return f"{len(messages)} {sum(messages)}".encode()


def double(requests, context):
    """Answers each message before it reads the next."""
    for request in requests:
        yield request + request


def serve(cert=None, key=None):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=64))
    unary = [echo, fail, left, sleep, noticed]
    handlers = {f.__name__: grpc.unary_unary_rpc_method_handler(f) for f in unary}
    handlers |= {f.__name__: grpc.unary_stream_rpc_method_handler(f) for f in [fail_late, forever, count]}
    handlers["total"] = grpc.stream_unary_rpc_method_handler(total)
    handlers["double"] = grpc.stream_stream_rpc_method_handler(double)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    checks = health.HealthServicer()
    checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if cert:
        pair = (open(key, "rb").read(), open(cert, "rb").read())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0).wait()


# === the client ===


def path(method):
    return f"/{SERVICE}/{method}"


def status(call):
    """The status of a call that has to fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it succeeded: {answer!r:.80}")


def unary_calls_carry_metadata_and_trailers(channel):
    call = channel.unary_unary(path("echo"))
    given = [("x-a", "1"), ("x-a", "2"), ("x-data-bin", b"\x00\x01\xfe\xff"), ("idempotency-key", "k")]
    for body in [b"", b"hello", b"x" * LARGE]:
        answer, ended = call.with_call(body, metadata=given, timeout=PATIENCE)
        assert answer == body
        expected = {("x-a", "1"), ("x-a", "2"), ("x-data-bin", b"\x00\x01\xfe\xff")}
        assert expected <= set(ended.initial_metadata()), ended.initial_metadata()
        expected |= {("x-trailer", "1"), ("x-trailer", "2")}
        assert expected <= set(ended.trailing_metadata()), ended.trailing_metadata()
        assert ended.code() is grpc.StatusCode.OK


def every_status_arrives(channel):
    call = channel.unary_unary(path("fail"))
    for code in grpc.StatusCode:
        if code is grpc.StatusCode.OK:
            continue
        error = status(lambda: call(str(code.value[0]).encode(), timeout=PATIENCE))
        assert error.code() is code, (error.code(), code)
        assert error.details() == f"no {code.name} is 100 % like «another»\n", error.details()
        assert ("x-why-bin", b"\x00\xff\x01") in error.trailing_metadata(), error.trailing_metadata()
    error = status(lambda: channel.unary_unary(path("nothing"))(b"", timeout=PATIENCE))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED, error.code()


def a_status_after_messages_arrives(channel):
    seen = []

    def read():
        for message in channel.unary_stream(path("fail_late"))(b"", timeout=PATIENCE):
            seen.append(message)

    error = status(read)
    assert (seen, error.code(), error.details()) == ([b"1", b"2"], grpc.StatusCode.DATA_LOSS, "late")


def many_calls(channel):
    call = channel.unary_unary(path("echo"))
    waiting = [call.future(str(number).encode(), timeout=6 * PATIENCE) for number in range(CALLS)]
    for number, answer in enumerate(waiting):
        assert answer.result() == str(number).encode()


def the_server_streams(channel):
    call = channel.unary_stream(path("count"))
    for messages, size in [(0, 1), (1000, 8), (20, LARGE)]:
        seen = list(call(f"{messages} {size}".encode(), timeout=6 * PATIENCE))
        assert [int(message.rstrip(b".")) for message in seen] == list(range(messages))
        assert all(len(message) == size for message in seen)


def the_client_streams(channel):
    call = channel.stream_unary(path("total"))
    for messages, size in [(0, 1), (1000, 8), (20, LARGE)]:
        answer = call((b"x" * size for _ in range(messages)), timeout=6 * PATIENCE)
        assert answer == f"{messages} {messages * size}".encode(), answer


def both_stream_in_lock_step(channel):
    answered = threading.Semaphore(1)

    def requests():
        for number in range(200):
            # None is sent before the answer to the one before it is there.
            assert answered.acquire(timeout=PATIENCE), "an answer is held back"
            yield str(number).encode()

    for number, answer in enumerate(channel.stream_stream(path("double"))(requests(), timeout=6 * PATIENCE)):
        assert answer == str(number).encode() * 2
        answered.release()
    assert number == 199


def the_deadline_reaches_the_server(channel):
    told = int(channel.unary_unary(path("left"))(b"", timeout=7))
    # The time is rounded on its way, upwards too.
    assert 2000 < told < 8000, told


def a_deadline_ends_both_sides(channel):
    begun = time.monotonic()
    error = status(lambda: channel.unary_unary(path("sleep"))(b"", timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error.code()
    assert time.monotonic() - begun < PATIENCE / 2
    assert channel.unary_unary(path("noticed"))(b"sleep", timeout=2 * PATIENCE) == b"yes"


def a_cancellation_ends_both_sides(channel):
    call = channel.unary_stream(path("forever"))(b"", timeout=6 * PATIENCE)
    assert next(call) == b"1"
    call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED, call.code()
    assert channel.unary_unary(path("noticed"))(b"forever", timeout=2 * PATIENCE) == b"yes"


def health_is_checked_and_watched(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service=SERVICE)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(asked, timeout=PATIENCE).status == serving
    watch = stub.Watch(asked, timeout=PATIENCE)
    assert next(watch).status == serving
    watch.cancel()
    error = status(lambda: stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE))
    assert error.code() is grpc.StatusCode.NOT_FOUND, error.code()


def messages_may_be_compressed(channel):
    call = channel.unary_unary(path("echo"))
    assert call(b"y" * LARGE, timeout=PATIENCE, compression=grpc.Compression.Gzip) == b"y" * LARGE


TRIALS = [
    unary_calls_carry_metadata_and_trailers,
    every_status_arrives,
    a_status_after_messages_arrives,
    many_calls,
    the_server_streams,
    the_client_streams,
    both_stream_in_lock_step,
    the_deadline_reaches_the_server,
    a_deadline_ends_both_sides,
    a_cancellation_ends_both_sides,
    health_is_checked_and_watched,
    messages_may_be_compressed,
]


def connect(address, ca=None):
    # No proxy of the environment, and no connection that another trial left behind.
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    if ca is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
    return grpc.secure_channel(address, credentials, options + [("grpc.ssl_target_name_override", "localhost")])


def call(address, ca=None):
    with connect(address, ca) as channel:
        for trial in TRIALS:
            begun = time.monotonic()
            try:
                trial(channel)
            except BaseException:
                print(f"failed: {trial.__name__}", file=sys.stderr)
                raise
            print(f"{trial.__name__}: {time.monotonic() - begun:.2f} s")


def unavailable(address):
    with connect(address) as channel:
        error = status(lambda: channel.unary_unary(path("echo"))(b"", timeout=PATIENCE))
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error


if __name__ == "__main__":
    {"serve": serve, "call": call, "unavailable": unavailable}[sys.argv[1]](*sys.argv[2:])
