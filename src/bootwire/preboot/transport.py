"""What opens connections and datagram sockets for the clients: this machine's kernel, or our own stack on a card."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, Self

from bootwire.preboot import sockets
from bootwire.preboot.stack import Stack

Address = tuple[str, int]

_IGNORE_UNEXPECTED_EOF: Final = 1 << 7  # SSL_OP_IGNORE_UNEXPECTED_EOF (openssl/ssl.h); Python sets it by default
_PIECE: Final = 64 * 1024  # octets of TLS records read at once; a record has 16 KiB at most (RFC 8446 section 5.1)


class Stream(Protocol):
    """A connection, with the rules of the `socket` module: time-outs raise TimeoutError, b"" is the end."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...


class Datagrams(Protocol):
    """A datagram socket, not connected; host and port are the first two of an address received."""

    def sendto(self, data: bytes, address: Address, /) -> int: ...
    def recvfrom(self, size: int, /) -> tuple[bytes, Any]: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...


class Transport(Protocol):
    """Where the clients get their sockets. Addresses are literals; what fails raises OSError."""

    def resolve(self, name: str) -> list[str]:
        """The addresses of a host, best first, at least one. A literal is its own."""

    def stream(self, address: str, port: int, timeout: float) -> Stream:
        """A connection; timeout, in seconds, is for making it."""

    def datagrams(self, towards: str, port: int = 0) -> Datagrams:
        """A datagram socket of the family of `towards`, on a free port or on `port`."""


class KernelTransport:
    """The kernel's sockets and the machine's own resolver."""

    def resolve(self, name: str) -> list[str]:
        if literal(name):
            return [name]
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise OSError(errno.EHOSTUNREACH, f"{name} has no address: {error.strerror}") from None
        except UnicodeError:
            raise OSError(errno.EINVAL, f"{name} is not a host name") from None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def stream(self, address: str, port: int, timeout: float) -> Stream:
        return socket.create_connection((address, port), timeout)

    def datagrams(self, towards: str, port: int = 0) -> Datagrams:
        made = socket.socket(socket.AF_INET6 if ":" in towards else socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        if port:
            try:
                made.bind(("", port))
            except OSError:
                made.close()
                raise
        return made


class StackTransport:
    """Our own stack's sockets.

    resolver  gives the addresses of a name, or raises OSError; None: only literals are known
    """

    def __init__(self, stack: Stack, resolver: Callable[[str], list[str]] | None = None) -> None:
        self._stack = stack
        self._resolver = resolver

    def resolve(self, name: str) -> list[str]:
        if literal(name):
            return [name]
        if self._resolver is None:
            raise OSError(errno.EHOSTUNREACH, f"no name server is known to ask for {name}")
        return self._resolver(name)

    def stream(self, address: str, port: int, timeout: float) -> Stream:
        return sockets.create_connection(self._stack, (address, port), timeout)

    def datagrams(self, towards: str, port: int = 0) -> Datagrams:
        made = sockets.Socket(self._stack, socket.SOCK_DGRAM)
        made.bind(("", port))
        return made


def connect(transport: Transport, host: str, port: int, timeout: float) -> Stream:
    """A connection to a name or literal: its addresses are tried in turn, within `timeout` seconds for all of them."""
    addresses = transport.resolve(host)
    end = time.monotonic() + timeout
    for tried, address in enumerate(addresses):
        share = max(0.01, end - time.monotonic()) / (len(addresses) - tried)
        try:
            return transport.stream(address, port, share)
        except OSError:
            if tried == len(addresses) - 1:
                raise
    raise OSError(errno.EHOSTUNREACH, f"{host} has no address")


def literal(host: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def client_context(trust: str = "") -> ssl.SSLContext:
    """What a client checks servers with. trust: a file of CA certificates, "" for the machine's own. OSError."""
    context = ssl.create_default_context(cafile=trust or None)
    context.options &= ~_IGNORE_UNEXPECTED_EOF  # a cut connection is not the end of a body
    return context


class SecureStream:
    """TLS over any stream. Making it shakes hands and checks the certificate; ssl.SSLError is an OSError.

    The end of the stream is b"" only if the peer said so (close_notify): a connection cut by somebody else raises.
    """

    def __init__(self, inner: Stream, context: ssl.SSLContext, host: str) -> None:
        self._inner = inner
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._exchange()
            except ssl.SSLError:
                self._alert()
                raise
            else:
                self._flush()
                return

    def sendall(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._tls.write(view) :]
            except ssl.SSLWantReadError:
                self._exchange()
            self._flush()

    def recv(self, size: int, /) -> bytes:
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._exchange()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLEOFError:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None

    def settimeout(self, seconds: float | None, /) -> None:
        self._inner.settimeout(seconds)

    def close(self) -> None:
        try:
            self._inner.settimeout(0)
            self._tls.unwrap()
        except OSError:
            self._alert()
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self) -> None:
        self._flush()
        data = self._inner.recv(_PIECE)
        if data:
            self._coming.write(data)
        else:
            self._coming.write_eof()

    def _flush(self) -> None:
        if data := self._going.read():
            self._inner.sendall(data)

    def _alert(self) -> None:
        """What TLS still has to say, if the peer is there to hear it."""
        try:
            self._flush()
        except OSError:
            return
