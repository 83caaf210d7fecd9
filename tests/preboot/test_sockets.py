"""Two stacks of ours on one cable, each with its thread; and one without."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import io
import random
import socket
import threading

import pytest

from bootwire.preboot.nic import PcapTee, cable
from bootwire.preboot.sockets import AsyncSocket, Socket, create_connection, wait_for_change
from bootwire.preboot.stack import Stack
from bootwire.wire import pcap

HERE, THERE = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def stacks():
    left, right = cable(b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
    with Stack(left) as a, Stack(right) as b:
        a.add_address(f"{HERE}/24")
        b.add_address(f"{THERE}/24")
        yield a, b


def serve(stack: Stack, handle, port: int = 80) -> Socket:
    """Accept in a thread and hand each connection to `handle`, until the listener is closed."""
    listener = Socket(stack)
    listener.bind(("", port))
    listener.listen()

    def run() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with accepted, contextlib.suppress(OSError):  # the stack may be closed under it
                handle(accepted)

    threading.Thread(target=run, daemon=True).start()
    return listener


def echo(connection: Socket) -> None:
    while data := connection.recv(65_536):
        connection.sendall(data)


def read_all(connection: Socket) -> bytes:
    parts = []
    while data := connection.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


def test_ping_both_ways(stacks):
    a, b = stacks
    assert 0 < a.ping(THERE) < 2
    assert 0 < b.ping(HERE, size=4000) < 2


def test_a_large_echo_comes_back_octet_for_octet(stacks):
    a, b = stacks
    serve(b, echo)
    data = random.Random(1).randbytes(3_000_000)
    connection = create_connection(a, (THERE, 80), 10)
    writer = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
    writer.start()
    assert read_all(connection) == data
    writer.join()


def test_errors_are_those_of_the_socket_module(stacks):
    a, _ = stacks
    with pytest.raises(ConnectionRefusedError):
        create_connection(a, (THERE, 81), 5)
    with pytest.raises(OSError, match="route") as no_route:
        create_connection(a, ("192.0.2.1", 80), 5)
    assert no_route.value.errno == errno.ENETUNREACH
    s = Socket(a)
    with pytest.raises(OSError, match="not connected"):
        s.send(b"x")
    s.close()
    with pytest.raises(OSError, match="Bad file"):
        s.recv(1)


def test_blocking_calls_end_at_their_time_out(stacks):
    a, b = stacks
    listener = serve(b, lambda connection: connection.recv(1))
    connection = create_connection(a, (THERE, 80), 5)
    connection.settimeout(0.05)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.setblocking(False)
    with pytest.raises(BlockingIOError):
        connection.recv(1)
    connection.close()
    listener.close()


def test_a_reset_is_seen_by_the_reader(stacks):
    a, b = stacks
    serve(b, lambda connection: None)  # closes at once
    connection = create_connection(a, (THERE, 80), 5)
    assert connection.recv(1) == b""
    connection.sendall(b"too late")
    assert a.wait(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 5)
    with pytest.raises(ConnectionResetError):
        connection.sendall(b"still")


def test_datagrams_keep_their_borders_and_their_sender(stacks):
    a, b = stacks
    server, client = Socket(b, socket.SOCK_DGRAM), Socket(a, socket.SOCK_DGRAM)
    server.bind(("", 5353))
    server.settimeout(5)
    client.settimeout(5)
    client.sendto(b"one", (THERE, 5353))
    client.sendto(bytes(5000), (THERE, 5353))
    data, sender = server.recvfrom(100)
    assert (data, sender[0]) == (b"one", HERE)
    assert server.recvfrom(100)[0] == bytes(100)  # cut, as datagrams are
    server.sendto(b"back", sender)
    assert client.recvfrom(100) == (b"back", (THERE, 5353))


def test_a_connected_datagram_socket_hears_that_nobody_listens(stacks):
    a, _ = stacks
    client = Socket(a, socket.SOCK_DGRAM)
    client.connect((THERE, 9))
    client.settimeout(5)
    client.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(10)


def test_many_sockets_at_once(stacks):
    a, b = stacks
    serve(b, lambda connection: connection.sendall(connection.recv(10) * 1000))
    connections = [create_connection(a, (THERE, 80), 5) for _ in range(16)]
    for i, connection in enumerate(connections):
        connection.sendall(b"%02d" % i)
    waiting = set(connections)
    got = dict.fromkeys(connections, b"")
    while waiting:
        for connection in wait_for_change(waiting, 5):
            data = connection.recv(4096)
            got[connection] += data
            if not data:
                waiting.remove(connection)
    assert [got[c] for c in connections] == [b"%02d" % i * 1000 for i in range(16)]


def test_a_library_that_wants_a_socket_takes_ours(stacks):
    a, b = stacks

    def answer(connection: Socket) -> None:
        with connection.makefile("rwb") as file:
            assert file.readline().startswith(b"GET /x")
            while file.readline().strip():
                pass
            file.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    serve(b, answer)
    client = http.client.HTTPConnection(THERE)
    client.sock = create_connection(a, (THERE, 80), 5)
    client.request("GET", "/x")
    assert client.getresponse().read() == b"hello"


def test_asyncio(stacks):
    a, b = stacks
    serve(b, echo)

    async def talk(i: int) -> bytes:
        s = AsyncSocket(Socket(a))
        await s.connect((THERE, 80))
        await s.sendall(bytes([i]) * 100_000)
        got = b""
        while len(got) < 100_000:
            got += await s.recv(65_536)
        s.close()
        return got

    async def all_at_once() -> list[bytes]:
        return await asyncio.wait_for(asyncio.gather(*(talk(i) for i in range(4))), 20)

    # one server thread serves them in turn
    assert asyncio.run(all_at_once()) == [bytes([i]) * 100_000 for i in range(4)]


def test_without_a_thread_whoever_waits_runs_the_stack():
    left, right = cable(b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
    with Stack(left, threaded=False) as a, Stack(right) as b:
        a.add_address(f"{HERE}/24")
        b.add_address(f"{THERE}/24")
        serve(b, echo)
        connection = create_connection(a, (THERE, 80), 5)
        connection.sendall(b"x" * 100_000)
        got = b""
        while len(got) < 100_000:
            got += connection.recv(65_536)
        assert got == b"x" * 100_000


def test_the_tee_writes_what_a_wire_would_carry():
    left, right = cable(b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
    file = io.BytesIO()
    with Stack(PcapTee(left, file)) as a, Stack(right) as b:
        a.add_address(f"{HERE}/24")
        b.add_address(f"{THERE}/24")
        serve(b, echo)
        connection = create_connection(a, (THERE, 80), 5)
        connection.sendall(b"x" * 20_000)
        connection.recv(1)
    packets = list(pcap.read([file.getvalue()]))
    assert len(packets) > 15
    assert max(p.size for p in packets) <= 1514


def test_closing_the_stack_ends_every_wait():
    left, right = cable(b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
    with Stack(left) as a, Stack(right):
        a.add_address(f"{HERE}/24")
        s = Socket(a, socket.SOCK_DGRAM)
        s.bind(("", 99))
        seen: list[OSError] = []

        def wait() -> None:
            try:
                s.recvfrom(1)
            except OSError as error:
                seen.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        a.close()
        thread.join(5)
    assert [e.errno for e in seen] == [errno.ENETDOWN]
