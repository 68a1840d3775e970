"""websockets' own server and client, with whatever is to be tried between them.

    websocket_talk.py serve [CERT KEY]    prints its port; ends with its standard input
    websocket_talk.py talk URL [CA]       exits 0 when everything behaved as without a proxy
    websocket_talk.py refused URL KEY     exits 0 when that idempotency key makes the handshake a 400
"""

import asyncio
import os
import ssl
import sys
import time

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serving

LARGE = 1 << 20
PEERS = 50
# For what happens by itself, on a machine that has other things to do.
PATIENCE = 10

# How connections to the server ended: path -> code.
ended = {}


# === the server ===


async def handle(socket):
    path = socket.request.path
    try:
        await behave(socket, path)
        await socket.wait_closed()
    except websockets.ConnectionClosed:
        pass  # How it ended is what the client will ask for.
    ended[path] = socket.close_code


async def behave(socket, path):
    match path.split("?")[0]:
        case "/echo":
            async for message in socket:
                await socket.send(message)
        case "/close":
            await socket.close(4001, "enough of this")
        case "/pings":
            # Fails when no pong comes back.
            pong = await socket.ping(b"\x00are you there?")
            await asyncio.wait_for(pong, PATIENCE)
            await socket.send("ponged")
        case "/greets":
            # Speaks first.
            await socket.send(socket.request.headers.get("Sec-WebSocket-Protocol", ""))
        case "/ended":
            deadline = time.monotonic() + PATIENCE
            name = await socket.recv()
            while name not in ended and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            await socket.send(str(ended.get(name)))


def second_if_offered(_, offered):
    return "second" if "second" in offered else None


async def serve(cert=None, key=None):
    context = None
    if cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
    options = {"max_size": 2 * LARGE, "select_subprotocol": second_if_offered, "ssl": context}
    async with serving(handle, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


# === the client ===


class Client:
    def __init__(self, url, ca=None):
        self.url = url
        self.options = {"max_size": 2 * LARGE, "proxy": None, "open_timeout": PATIENCE}
        if ca:
            self.options["ssl"] = ssl.create_default_context(cafile=ca)

    def open(self, path, **options):
        return connect(self.url + path, **(self.options | options))


async def messages_of_all_kinds_and_sizes_come_back(client):
    for compression in ["deflate", None]:
        async with client.open("/echo", compression=compression) as socket:
            for size in [0, 1, 125, 126, 65535, 65536, LARGE]:
                for message in ["é" * (size // 2), os.urandom(size)]:
                    await socket.send(message)
                    assert await asyncio.wait_for(socket.recv(), PATIENCE) == message
        assert socket.close_code == 1000, socket.close_code


async def a_message_in_fragments_comes_back(client):
    async with client.open("/echo") as socket:

        async def fragments():
            for number in range(20):
                yield f"{number},"
                await asyncio.sleep(0.001)

        await socket.send(fragments())
        assert await asyncio.wait_for(socket.recv(), PATIENCE) == "".join(f"{number}," for number in range(20))


async def messages_cross_each_other(client):
    """Both directions are full at the same time."""
    async with client.open("/echo", compression=None) as socket:

        async def write():
            for number in range(100):
                await socket.send(bytes([number]) * 65_536)

        writing = asyncio.create_task(write())
        for number in range(100):
            assert await asyncio.wait_for(socket.recv(), PATIENCE) == bytes([number]) * 65_536
        await writing


async def pings_are_answered_from_either_side(client):
    async with client.open("/echo") as socket:
        pong = await socket.ping(b"\xffhello")
        assert await asyncio.wait_for(pong, PATIENCE) >= 0
    async with client.open("/pings") as socket:
        assert await asyncio.wait_for(socket.recv(), PATIENCE) == "ponged"


async def a_server_that_speaks_first_is_heard(client):
    async with client.open("/greets", subprotocols=["first", "second"]) as socket:
        assert socket.subprotocol == "second"
        assert await asyncio.wait_for(socket.recv(), PATIENCE) == "first, second"


async def close_codes_arrive_at_either_side(client):
    async with client.open("/close") as socket:
        try:
            await asyncio.wait_for(socket.recv(), PATIENCE)
            raise AssertionError("it is open")
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "enough of this")
    async with client.open("/echo?left") as socket:
        await socket.close(4002, "gone")
    async with client.open("/echo?lost") as socket:
        socket.transport.abort()
    async with client.open("/ended") as socket:
        await socket.send("/echo?left")
        assert await asyncio.wait_for(socket.recv(), 2 * PATIENCE) == "4002"
    async with client.open("/ended") as socket:
        await socket.send("/echo?lost")
        assert await asyncio.wait_for(socket.recv(), 2 * PATIENCE) == "1006"


async def many_talk_at_once(client):
    async def one(number):
        async with client.open("/echo") as socket:
            for count in range(10):
                await socket.send(f"{number} {count}")
                assert await asyncio.wait_for(socket.recv(), PATIENCE) == f"{number} {count}"

    await asyncio.gather(*(one(number) for number in range(PEERS)))


TRIALS = [
    messages_of_all_kinds_and_sizes_come_back,
    a_message_in_fragments_comes_back,
    messages_cross_each_other,
    pings_are_answered_from_either_side,
    a_server_that_speaks_first_is_heard,
    close_codes_arrive_at_either_side,
    many_talk_at_once,
]


async def talk(url, ca=None):
    client = Client(url, ca)
    for trial in TRIALS:
        begun = time.monotonic()
        try:
            await trial(client)
        except BaseException:
            print(f"failed: {trial.__name__}", file=sys.stderr)
            raise
        print(f"{trial.__name__}: {time.monotonic() - begun:.2f} s")


async def refused(url, key):
    headers = {"Idempotency-Key": key, "Authorization": "alice"}
    try:
        async with Client(url).open("/echo", additional_headers=headers):
            raise AssertionError("it was let through")
    except websockets.InvalidStatus as invalid:
        response = invalid.response
        assert response.status_code == 400, response
        assert b'"code":"bad-request"' in response.body, response.body


if __name__ == "__main__":
    asyncio.run({"serve": serve, "talk": talk, "refused": refused}[sys.argv[1]](*sys.argv[2:]))
