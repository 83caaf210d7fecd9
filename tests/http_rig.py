"""An HTTP server in a thread of its own, and a client that speaks exactly the octets it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from bootwire.facts import Fact
from bootwire.serve.content import Peer, Reply, Upstream
from bootwire.serve.http import HttpServer, Limits
from bootwire.serve.loop import Loop
from bootwire.serve.upstream import Streamer
from bootwire.wire.http import Request

DEFAULT = Limits()
SLOW = 32 * 1024  # octets of receive buffer of a client that holds a transfer up
PATIENCE = 20  # seconds after which a test has failed


class House:
    """A server in its own thread, with its facts."""

    def __init__(self, resolve: Callable[[Request, Peer], object], limits: Limits = DEFAULT, **more: object) -> None:
        self.facts: queue.SimpleQueue[Fact] = queue.SimpleQueue()
        self.errors: list[BaseException] = []
        self.streamer: Streamer | None = None
        self.control: asyncio.AbstractEventLoop | None = None
        self.loop = Loop(self.errors.append)
        self.server = HttpServer(
            self.loop,
            [("127.0.0.1", 0)],
            resolve,
            self.facts.put,
            limits=limits,
            **more,  # type: ignore[arg-type]
        )
        self.port = self.server.addresses[0][1]
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def run(self, action: Callable[[], object]) -> None:
        """Do `action` in the loop's thread, and wait for it."""
        done = threading.Event()
        self.loop.call_soon(lambda: (action(), done.set()))
        assert done.wait(PATIENCE)

    def fact(self, kind: type[Fact]) -> Fact:
        """The next fact, which is of this kind."""
        fact = self.facts.get(timeout=PATIENCE)
        assert isinstance(fact, kind), fact
        return fact

    def all_facts(self) -> list[Fact]:
        """What was told until now."""
        self.run(lambda: None)
        return [self.facts.get() for _ in range(self.facts.qsize())]

    def no_fact(self) -> None:
        self.run(lambda: None)
        assert self.facts.empty(), self.facts.get()

    def close(self) -> None:
        self.run(self.server.close)
        self.loop.stop()
        self._thread.join(PATIENCE)
        self.loop.close()
        assert not self._thread.is_alive()


class Client:
    """A raw connection."""

    def __init__(self, port: int, receive_buffer: int = 0) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(("127.0.0.1", port))
        except OSError:
            self.sock.close()
            raise
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def get(
        self, path: str, *fields: str, method: str = "GET", version: str = "1.1"
    ) -> tuple[int, dict[str, str], bytes]:
        self.send("\r\n".join((f"{method} {path} HTTP/{version}", "Host: 127.0.0.1", *fields, "", "")).encode())
        return self.answer(method)

    def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        if method == "HEAD" or status in (204, 304):
            return status, headers, b""
        size = int(headers["content-length"])
        while len(self.rest) < size:
            self.more()
        body, self.rest = self.rest[:size], self.rest[size:]
        return status, headers, body

    def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self.rest:
            self.more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split(" ")[1]), headers

    def more(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError(self.rest)
        self.rest += data

    def all(self) -> bytes:
        """What is left until the server closes."""
        while data := self.sock.recv(1 << 20):
            self.rest += data
        return self.rest

    def ended(self) -> bool:
        """Wait until the server closes; nothing may come before that."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


@contextlib.contextmanager
def served(resolve: Callable[[Request, Peer], object], limits: Limits = DEFAULT, **more: object) -> Iterator[House]:
    house = House(resolve, limits, **more)
    try:
        yield house
    finally:
        house.close()


class Origin:
    """Another HTTP server: `script(head, connection, number)` does as it likes with each connection's requests.

    heads   every request head it got, as text
    """

    def __init__(self, script: Callable[[str, socket.socket, int], object]) -> None:
        self.heads: list[str] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = sock.recv(65536)
                    if not data:
                        return
                    head += data
                self.heads.append(head.decode())
                if self._script(head.decode(), sock, len(self.heads) - 1) == "close":
                    return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)


@contextlib.contextmanager
def origin(script: Callable[[str, socket.socket, int], object]) -> Iterator[Origin]:
    server = Origin(script)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def streaming(url: str) -> Iterator[House]:
    """A server whose every path but /here comes from `url`, with a control loop of its own."""
    control = asyncio.new_event_loop()
    thread = threading.Thread(target=control.run_forever)
    thread.start()
    facts: list[House] = []

    def resolve(request: Request, peer: Peer) -> object:
        if request.path == "/here":
            return Reply(200, b"from here")
        return Upstream("kernel", url, "52:54:00:12:34:56", "application/efi")

    def give_back(sock: socket.socket, leftover: bytes) -> None:
        facts[0].loop.call_soon(lambda: facts[0].server.adopt(sock, leftover))

    streamer = Streamer(control, lambda fact: facts[0].facts.put(fact), give_back)
    try:
        with served(resolve, hand_over=streamer.take) as house:
            house.streamer, house.control = streamer, control
            facts.append(house)
            try:
                yield house
            finally:
                asyncio.run_coroutine_threadsafe(streamer.close(), control).result(PATIENCE)
    finally:
        control.call_soon_threadsafe(control.stop)
        thread.join(PATIENCE)
        control.close()
