"""Berkeley sockets on our own stack: the names, the blocking rules and the exceptions of Python's `socket` module.

There is no file descriptor behind them: select and poll do not know them. `wait_for_change` and `AsyncSocket` are the
ways to wait for several.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import socket as names
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from bootwire.engine import S
from bootwire.engine.ip import Flow, Listener, UdpPort
from bootwire.engine.tcp import Failure
from bootwire.preboot.stack import Stack, packed, text

Address = tuple[str, int]

_ERRORS: dict[Failure, int] = {
    Failure.REFUSED: errno.ECONNREFUSED,
    Failure.RESET: errno.ECONNRESET,
    Failure.TIMED_OUT: errno.ETIMEDOUT,
    Failure.UNREACHABLE: errno.EHOSTUNREACH,
    Failure.ABORTED: errno.ECONNABORTED,
}


class Socket:
    """One socket. kind: SOCK_STREAM or SOCK_DGRAM of the `socket` module. IPv4 or IPv6 is told by the addresses."""

    def __init__(self, stack: Stack, kind: int = names.SOCK_STREAM) -> None:
        if kind not in (names.SOCK_STREAM, names.SOCK_DGRAM):
            raise OSError(errno.EPROTONOSUPPORT, "only stream and datagram sockets")
        self.stack, self.type = stack, int(kind)
        self._timeout: float | None = None
        self._flow: Flow | None = None
        self._listener: Listener | None = None
        self._udp: UdpPort | None = None
        self._peer: tuple[bytes, int] | None = None  # of a connected datagram socket
        self._bound: tuple[bytes, int] = (b"", 0)
        self._config = replace(stack.host.tcp)
        self._closed = False
        self._read_shut = False

    # --- opening --------------------------------------------------------------------------------------------------

    def bind(self, address: Address) -> None:
        """Take a port; host "" is any address of ours, port 0 any free one."""
        self._check()
        host, port = address[:2]
        local = b"" if host in ("", "0.0.0.0", "::") else packed(host)
        with self.stack.acting():
            if local and all(local != a for a, _ in self.stack.host.addresses):
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            if self.type == names.SOCK_DGRAM:
                self._bind_udp(port, local)
            else:
                self._bound = (local, port)

    def connect(self, address: Address) -> None:
        """Connect; of a datagram socket: talk and listen to this peer only."""
        self._check()
        host, port = packed(address[0]), address[1]
        if self.type == names.SOCK_DGRAM:
            self._peer = (host, port)
            if self._udp is None:
                with self.stack.acting():
                    self._bind_udp(0, b"")
            return
        if self._flow is not None or self._listener is not None:
            raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
        with self.stack.acting() as now:
            try:
                self._flow = self.stack.host.connect(
                    host, port, now, source=self._bound[0], source_port=self._bound[1], config=self._config
                )
            except ValueError as error:
                code = errno.ENETUNREACH if "route" in str(error) else errno.EADDRINUSE
                raise OSError(code, str(error)) from None
        flow = self._flow
        if self._timeout == 0:
            raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))
        try:
            self._wait(lambda: flow.connection.established or flow.connection.failure)
        except TimeoutError:
            with self.stack.acting():
                flow.connection.abort()
                self.stack.host.touch(flow)
            raise
        self._raise_failure(flow)

    def connect_ex(self, address: Address) -> int:
        """`connect`, with the error's number instead of an exception; 0 for none."""
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or errno.ETIMEDOUT
        return 0

    def listen(self, backlog: int = 16) -> None:
        """Let others connect."""
        self._check()
        with self.stack.acting():
            try:
                self._listener = self.stack.host.listen(self._bound[1], backlog, self._bound[0], self._config)
            except ValueError as error:
                raise OSError(errno.EADDRINUSE, str(error)) from None
            self._bound = (self._bound[0], self._listener.port)

    def accept(self) -> tuple[Socket, Address]:
        """The next connection, and who it is."""
        self._check()
        listener = self._listener
        if listener is None:
            raise OSError(errno.EINVAL, "not listening")
        self._wait(lambda: listener.ready or self._closed)
        self._check()
        with self.stack.acting():
            if not listener.ready:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            flow = listener.ready.popleft()
        accepted = Socket(self.stack)
        accepted._flow, accepted._config = flow, self._config
        return accepted, accepted.getpeername()

    # --- streams --------------------------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Hand over as much as there is room for, at least one octet; how many."""
        self._check()
        if self.type == names.SOCK_DGRAM:
            if self._peer is None:
                raise OSError(errno.EDESTADDRREQ, os.strerror(errno.EDESTADDRREQ))
            return self._send_to(bytes(data), *self._peer)
        flow = self._connected()
        connection = flow.connection
        if not len(data):
            return 0

        def ready() -> object:
            return connection.room or connection.failure or connection._closing or not flow_alive(flow)

        self._wait(ready)
        with self.stack.acting():
            self._raise_failure(flow)
            taken = connection.write(data)
            if not taken:
                if connection._closing or not flow_alive(flow):
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self.stack.host.touch(flow)
        return taken

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """All of it."""
        with memoryview(data) as view, view.cast("B") as octets:
            at = 0
            while at < len(octets):
                at += self.send(octets[at : at + (1 << 18)])

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Between 1 and `size` octets; b"" at the end of the stream."""
        if self.type == names.SOCK_DGRAM:
            return self.recvfrom(size)[0]
        self._check()
        if self._read_shut:
            return b""
        flow = self._connected()
        connection = flow.connection
        self._wait(lambda: connection.readable or connection.at_end or connection.failure)
        with self.stack.acting():
            data = connection.read(size)
            if data:
                self.stack.host.touch(flow)
                return data
            self._raise_failure(flow)
            if connection.at_end:
                return b""
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def recv_into(self, buffer: bytearray | memoryview, size: int = 0, flags: int = 0) -> int:
        """`recv` into `buffer`; how many octets."""
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.recv(size or len(octets))
            octets[: len(data)] = data
        return len(data)

    def shutdown(self, how: int) -> None:
        """SHUT_WR: no more from us, the peer reads to the end; SHUT_RD: what comes is not read; SHUT_RDWR."""
        self._check()
        flow = self._connected()
        with self.stack.acting() as now:
            if how in (names.SHUT_WR, names.SHUT_RDWR):
                flow.connection.close(now)
            if how in (names.SHUT_RD, names.SHUT_RDWR):
                self._read_shut = True
            self.stack.host.touch(flow)

    # --- datagrams ------------------------------------------------------------------------------------------------

    def sendto(self, data: bytes, address: Address) -> int:
        """Send one datagram."""
        self._check()
        return self._send_to(data, packed(address[0]), address[1])

    def recvfrom(self, size: int) -> tuple[bytes, Address]:
        """The oldest datagram, cut to `size` octets, and who sent it.

        A port that an ICMP error said is closed raises ConnectionRefusedError on a connected socket.
        """
        self._check()
        if self.type != names.SOCK_DGRAM:
            return self.recv(size), self.getpeername()
        port = self._udp
        if port is None:
            raise OSError(errno.EINVAL, "not bound")
        while True:
            self._wait(lambda: port.queue or (self._peer and port.errors) or self._closed)
            self._check()
            with self.stack.acting():
                while (found := port.take()) is not None:
                    data, source, source_port, _ = found
                    if self._peer is None or self._peer == (source, source_port):
                        return data[:size], (text(source), source_port)
                if self._peer is not None and port.errors:
                    because = port.errors.popleft().because
                    code = errno.ECONNREFUSED if because.startswith("port") else errno.EHOSTUNREACH
                    raise OSError(code, because)
            if self._timeout == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    # --- ends and options -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give it up. What was sent still goes out; unread data or more of it makes the peer see a reset."""
        if self._closed:
            return
        self._closed = True
        if not self.stack._running:
            return
        with self.stack.acting() as now:
            if self._flow is not None:
                self._flow.connection.abandon(now)
                self.stack.host.touch(self._flow)
            if self._listener is not None:
                self.stack.host.close_listener(self._listener)
            if self._udp is not None:
                self.stack.host.close_udp(self._udp)
            self.stack._turned.notify_all()  # another thread may wait in accept or recvfrom

    def getsockname(self) -> Address:
        if self._flow is not None:
            return text(self._flow.local), self._flow.connection.local
        if self._udp is not None:
            return text(self._udp.address or bytes(4)), self._udp.port
        return text(self._bound[0] or bytes(4)), self._bound[1]

    def getpeername(self) -> Address:
        if self._flow is not None:
            return text(self._flow.remote), self._flow.connection.remote
        if self._peer is not None:
            return text(self._peer[0]), self._peer[1]
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def settimeout(self, seconds: float | None) -> None:
        """How long calls wait: None for ever, 0 not at all."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        self._timeout = None if flag else 0.0

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """TCP_NODELAY, TCP_KEEPIDLE (seconds), SO_KEEPALIVE, SO_RCVBUF, SO_SNDBUF; SO_REUSEADDR, which changes nothing.

        OSError for others. A receive buffer above 64 KiB is seen by the peer only if set before connect or listen.
        """
        match (level, option):
            case (names.IPPROTO_TCP, names.TCP_NODELAY):
                change: dict[str, Any] = {"nodelay": bool(value)}
            case (names.SOL_SOCKET, names.SO_KEEPALIVE):
                change = {"keepalive": (self._config.keepalive or 7200 * S) if value else 0}
            case (names.IPPROTO_TCP, names.TCP_KEEPIDLE):
                change = {"keepalive": value * S}
            case (names.SOL_SOCKET, names.SO_RCVBUF):
                change = {"receive_buffer": max(4096, min(value, 64 << 20))}
            case (names.SOL_SOCKET, names.SO_SNDBUF):
                change = {"send_buffer": max(4096, min(value, 64 << 20))}
            case (names.SOL_SOCKET, names.SO_REUSEADDR):
                return
            case _:
                raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        self._config = replace(self._config, **change)
        if self._flow is not None:
            with self.stack.acting():
                self._flow.connection.config = replace(self._flow.connection.config, **change)

    def getsockopt(self, level: int, option: int) -> int:
        """SO_ERROR, SO_TYPE, SO_RCVBUF, SO_SNDBUF, TCP_NODELAY, TCP_MAXSEG."""
        match (level, option):
            case (names.SOL_SOCKET, names.SO_ERROR):
                failure = None if self._flow is None else self._flow.connection.failure
                return 0 if failure is None else _ERRORS[failure]
            case (names.SOL_SOCKET, names.SO_TYPE):
                return self.type
            case (names.SOL_SOCKET, names.SO_RCVBUF):
                return self._config.receive_buffer
            case (names.SOL_SOCKET, names.SO_SNDBUF):
                return self._config.send_buffer
            case (names.IPPROTO_TCP, names.TCP_NODELAY):
                return int(self._config.nodelay)
            case (names.IPPROTO_TCP, names.TCP_MAXSEG):
                return self._connected().connection.mss
            case _:
                raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    @property
    def readable(self) -> bool:
        """Whether `recv`, `recvfrom` or `accept` would not wait."""
        if self._flow is not None:
            c = self._flow.connection
            return bool(c.readable or c.at_end or c.failure)
        if self._listener is not None:
            return bool(self._listener.ready)
        return self._udp is not None and bool(self._udp.queue or (self._peer and self._udp.errors))

    @property
    def writable(self) -> bool:
        """Whether `send` would not wait; of a stream that is connecting: whether that is over."""
        if self._flow is None:
            return self._udp is not None
        c = self._flow.connection
        return bool(c.failure or (c.established and c.room) or not flow_alive(self._flow))

    def makefile(self, mode: str = "r", buffering: int = -1, **text_options: Any) -> Any:
        """A file over this socket, as `socket.makefile`: "rb", "wb", "rwb" or text."""
        raw = _Raw(self, "r" in mode or "w" not in mode, "w" in mode)
        if buffering == 0:
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        file: Any
        if raw.readable() and raw.writable():
            file = io.BufferedRWPair(raw, raw, size)
        else:
            file = io.BufferedReader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)
        return file if "b" in mode else io.TextIOWrapper(file, **text_options)

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- helpers --------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _connected(self) -> Flow:
        if self._flow is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._flow

    def _bind_udp(self, port: int, local: bytes) -> None:
        try:
            self._udp = self.stack.host.bind_udp(port, local)
        except ValueError as error:
            raise OSError(errno.EADDRINUSE, str(error)) from None

    def _send_to(self, data: bytes, host: bytes, port: int) -> int:
        with self.stack.acting() as now:
            if self._udp is None:
                self._bind_udp(0, b"")
            assert self._udp is not None
            trouble = self.stack.host.send_udp(data, host, port, self._udp.port, now, self._udp.address)
        if trouble:
            raise OSError(errno.EMSGSIZE if "long" in trouble else errno.ENETUNREACH, trouble)
        return len(data)

    def _wait(self, ready: Callable[[], object]) -> None:
        if self._timeout != 0 and not self.stack.wait(ready, self._timeout):
            if not self.stack._running:
                raise OSError(errno.ENETDOWN, "the stack was closed")
            raise TimeoutError(errno.ETIMEDOUT, "timed out")

    def _raise_failure(self, flow: Flow) -> None:
        failure = flow.connection.failure
        if failure is not None:
            raise OSError(_ERRORS[failure], flow.connection.soft_error or failure.value)


def flow_alive(flow: Flow) -> bool:
    """Whether a connection is not over yet."""
    return flow.connection.established or flow.connection.state.value.startswith("SYN")


def create_connection(stack: Stack, address: Address, timeout: float | None = None) -> Socket:
    """A connected stream socket. host: a literal address."""
    made = Socket(stack)
    made.settimeout(timeout)
    try:
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


def wait_for_change(sockets: Iterable[Socket], timeout: float | None) -> list[Socket]:
    """The sockets that are readable; waits until one is, at most `timeout` seconds. All of one stack."""
    watched = list(sockets)
    if not watched:
        return []
    watched[0].stack.wait(lambda: any(s.readable for s in watched), timeout)
    return [s for s in watched if s.readable]


class AsyncSocket:
    """A socket for asyncio: the same calls, awaited. Its stack must run a thread of its own."""

    def __init__(self, inner: Socket) -> None:
        if not inner.stack._threaded:
            raise ValueError("asyncio needs a stack with a thread")
        self.inner = inner
        inner.settimeout(0)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        inner.stack.changed.append(self._notify)

    async def connect(self, address: Address) -> None:
        with contextlib.suppress(BlockingIOError):
            self.inner.connect(address)
        await self._until(lambda: self.inner.writable)
        self.inner._raise_failure(self.inner._connected())

    async def accept(self) -> tuple[AsyncSocket, Address]:
        await self._until(lambda: self.inner.readable)
        accepted, address = self.inner.accept()
        return AsyncSocket(accepted), address

    async def recv(self, size: int) -> bytes:
        await self._until(lambda: self.inner.readable)
        return self.inner.recv(size)

    async def recvfrom(self, size: int) -> tuple[bytes, Address]:
        await self._until(lambda: self.inner.readable)
        return self.inner.recvfrom(size)

    async def sendall(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            await self._until(lambda: self.inner.writable)
            with contextlib.suppress(BlockingIOError):
                at += self.inner.send(memoryview(data)[at : at + (1 << 18)])

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self.inner.stack.changed.remove(self._notify)
        self.inner.close()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._changed.clear()
            if not ready():
                await self._changed.wait()

    def _notify(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._changed.set)


class _Raw(io.RawIOBase):
    """The unbuffered file under `makefile`. Closing it leaves the socket open."""

    def __init__(self, inner: Socket, reads: bool, writes: bool) -> None:
        self._inner, self._reads, self._writes = inner, reads, writes

    def readable(self) -> bool:
        return self._reads

    def writable(self) -> bool:
        return self._writes

    def readinto(self, buffer: Any) -> int:
        return self._inner.recv_into(buffer)

    def write(self, data: Any) -> int:
        return self._inner.send(data)
