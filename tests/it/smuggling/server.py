"""Says of each request that h11 found whole what it was: as a line on stdout, and as the answer."""

import contextlib
import os
import socket
import sys
import threading

import h11


def request_of(connection, stream):
    """The next request and its body; None at the connection's end."""
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(stream.recv(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return request, body
        else:
            return None


def answer(connection, stream, request, status, text):
    headers = [("content-length", str(len(text)))]
    stream.sendall(connection.send(h11.Response(status_code=status, headers=headers)))
    if request is None or request.method != b"HEAD":
        stream.sendall(connection.send(h11.Data(data=text)))
    stream.sendall(connection.send(h11.EndOfMessage()))


def echo(connection, stream, port):
    while (found := request_of(connection, stream)) is not None:
        request, body = found
        host = dict(request.headers).get(b"host", b"-")
        words = [str(port).encode(), request.method, host, request.target, body.hex().encode() or b"-"]
        line = b" ".join(words)
        os.write(sys.stdout.fileno(), line + b"\n")
        answer(connection, stream, request, 200, line)
        if connection.our_state is not h11.DONE:
            return
        connection.start_next_cycle()


def serve(stream, port):
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=128 * 1024)
    # Whoever breaks off in a request is not there to hear of it.
    with stream, contextlib.suppress(OSError):
        try:
            echo(connection, stream, port)
        except h11.RemoteProtocolError as error:
            if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                answer(connection, stream, None, error.error_status_hint, b"refused by h11")


def leave_with_the_test():
    sys.stdin.buffer.read()
    os._exit(0)


listener = socket.create_server(("127.0.0.1", 0))
os.write(sys.stdout.fileno(), f"listening {listener.getsockname()[1]}\n".encode())
threading.Thread(target=leave_with_the_test, daemon=True).start()
while True:
    accepted, address = listener.accept()
    threading.Thread(target=serve, args=(accepted, address[1]), daemon=True).start()
