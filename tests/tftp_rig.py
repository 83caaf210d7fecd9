"""A TFTP server on loopback in a thread, and a plain client for it: what several test files and the benchmark need."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bootwire.engine.tftp import Packet, Receiver, Verdict, Wanted
from bootwire.facts import Fact
from bootwire.serve.content import Content, Missing, Peer
from bootwire.serve.loop import Loop
from bootwire.serve.tftp import DEFAULT_LIMITS, Limits, TftpServer
from bootwire.wire import tftp as wire
from namespaces import Namespace

LOOPBACK = "127.0.0.1"


@dataclass
class Shelf:
    """Names to octets, or to paths of files."""

    files: dict[bytes, bytes | str] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)

    def __call__(self, name: bytes, peer: Peer) -> Content | Missing:
        self.asked.append(name)
        found = self.files.get(name)
        if found is None:
            return Missing("no such name")
        shown = name.decode("ascii", "replace")
        if isinstance(found, bytes):
            return Content(shown, len(found), data=found, key=(name, len(found)))
        fd = os.open(found, os.O_RDONLY)
        state = os.fstat(fd)
        return Content(shown, state.st_size, fd=fd, key=(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


@dataclass
class Rig:
    server: TftpServer
    loop: Loop
    facts: list[Fact]
    errors: list[BaseException]

    @property
    def at(self) -> tuple[str, int]:
        return (LOOPBACK, self.server.ports[0])

    def call(self, function: object) -> object:
        """Run it in the loop's thread and give its result."""
        assert callable(function)
        done, result = threading.Event(), []

        def run() -> None:
            result.append(function())
            done.set()

        self.loop.call_soon(run)
        assert done.wait(10)
        return result[0]

    def wait_for(self, kind: type[Fact], count: int = 1, seconds: float = 10) -> list[Fact]:
        """The facts of a kind, as soon as there are `count`."""
        until = time.monotonic() + seconds
        while len(found := [fact for fact in list(self.facts) if isinstance(fact, kind)]) < count:
            assert time.monotonic() < until, f"no {kind.__name__} among {self.facts}"
            time.sleep(0.005)
        return found


@contextlib.contextmanager
def serving(
    files: dict[bytes, bytes | str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    single_port: bool = False,
    address: str = LOOPBACK,
    interface: str = "",
    namespace: Namespace | None = None,
) -> Iterator[Rig]:
    """A server that runs in a thread of its own, or in the one of `namespace`."""
    errors: list[BaseException] = []
    facts: list[Fact] = []
    loop = Loop(errors.append)
    listen = [(address, 0, interface)]

    def make() -> TftpServer:
        return TftpServer(loop, listen, Shelf(files), facts.append, limits=limits, single_port=single_port)

    server = namespace.call(make) if namespace else make()
    thread = threading.Thread(target=(lambda: namespace.call(loop.run)) if namespace else loop.run)
    thread.start()
    rig = Rig(server, loop, facts, errors)
    try:
        yield rig
        assert errors == []
    finally:
        rig.call(server.close)
        loop.stop()
        thread.join()
        loop.close()


@dataclass
class Fetched:
    outcome: Verdict | None
    body: bytes
    options: wire.Options
    source: object


def fetch(at: tuple[str, int], wanted: Wanted, seconds: float = 30) -> Fetched:
    """Fetch one file with our own receiver over a real socket."""
    receiver = Receiver(wanted)
    body: list[bytes] = []
    server: object = None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((LOOPBACK if at[0].startswith("127.") else "", 0))

        def send(packets: list[Packet]) -> None:
            for packet in packets:
                sock.sendto(packet.data, packet.to or at)

        until = time.monotonic() + seconds
        send(receiver.start(time.monotonic_ns()))
        while receiver.outcome is None and time.monotonic() < until:
            assert receiver.deadline is not None
            wait = max(0.0, (receiver.deadline - time.monotonic_ns()) / 1e9)
            if readable(sock, wait):
                data, server = sock.recvfrom(70_000)
                send(receiver.receive(data, server, time.monotonic_ns()))
            else:
                send(receiver.tick(time.monotonic_ns()))
            body += receiver.take()
    return Fetched(receiver.outcome, b"".join(body), receiver.options, server)


@contextlib.contextmanager
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        sock.settimeout(5)
        yield sock


def silent(sock: socket.socket, seconds: float = 0.3) -> bool:
    """Nothing comes for that long."""
    return not select.select([sock], [], [], seconds)[0]


def readable(sock: socket.socket, seconds: float) -> bool:
    """Whether something arrives in time. poll(2), since descriptors here go beyond what select(2) can name."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
