"""The TFTP server: sockets, budgets and facts around `engine.tftp.Sender`.

Each transfer has a connected UDP socket of its own on the address the client asked, so that the kernel sorts the
packets. Its port is one of a few dozen random ones, each also held by an unconnected socket, which gets what comes to
that port from anybody else and answers ERROR 5 (RFC 1350 section 4). In single-port mode the one port is the
listener's own: for clients behind NAT, and for containers with one port published.

A whole window leaves in one send (UDP_SEGMENT) out of a shared image of the file's datagrams (`blocks`). The path of
one ACK is `_Transfer.on_ready`: no heap push, no fact. What happens once a transfer, and whatever goes wrong, is in
the other methods. Single blocks leave after all ACKs that a look found have been read (`TftpServer.answer_all`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from bootwire.engine import Ns, S
from bootwire.engine import tftp as engine
from bootwire.facts import (
    Fact,
    Listening,
    NotFound,
    Refused,
    SizeProbed,
    TransferDone,
    TransferFailed,
    TransferStarted,
    Warned,
)
from bootwire.serve.blocks import (
    NETASCII_LIMIT,
    Changed,
    Image,
    Images,
    Netascii,
    Octets,
    Plain,
    Source,
    netascii_size,
)
from bootwire.serve.brake import Brake
from bootwire.serve.content import SHORTAGES, Content, Missing, Peer, Record, TftpResolver
from bootwire.serve.loop import IN, Loop, Timer
from bootwire.serve.udp import IP_MTU_DISCOVER, IP_PMTUDISC_DONT, Door, Key
from bootwire.wire import tftp as wire
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

# Linux numbers that Python 3.11's socket module does not name.
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103  # linux/udp.h
_IP_MTU: Final = 14  # linux/in.h

_HEADERS: Final = 32  # octets of IPv4, UDP and TFTP headers: blksize is at most the path's MTU less these
_SEGMENTS: Final = 64  # of one UDP_SEGMENT send (Linux UDP_MAX_SEGMENTS before 6.9)
_SEGMENTS_OCTETS: Final = 65_507  # of one UDP_SEGMENT send: the payload of one IPv4 datagram
_LISTEN_BUFFER: Final = 8 << 20  # octets: of 1000 requests at once most are lost in the default 208 KiB
_TIDS: Final = 64  # ports that transfers share; each costs a descriptor. A divisor of 256
_DATAGRAM: Final = 479  # octets read of one to a transfer: what CPython takes from its small-object pools
_DATAGRAMS_A_TURN: Final = 256  # about what a default receive buffer holds of the smallest
_DEAF_AFTER: Final = 3  # the same request so often, none of its answers acknowledged: they do not reach the machine
_RESET_AFTER: Final = 1 * S  # a request repeated so long after the last progress comes from a machine that was reset
_REJOIN: Final = 63  # a transfer that began without an image looks for one at each block with none of these bits
_CATCH_UP: Final = 64  # datagrams: more than a client can have under way
_TEXT: Final = 60  # octets of an ERROR's text: no answer is much longer than what it answers
_unpack: Final = struct.Struct("!HH").unpack  # opcode and block number of an ACK
_JUNK: Final = bytes([*range(0x20), *range(0x7F, 0x100)])


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server may use up.

    transfers   in all; established ones are never given up for new ones
    unproven    of these, the ones whose client has acknowledged nothing yet: when they are too many, the oldest goes
    address     with one client address: half, so that nobody has it all, but a thousand machines behind one NAT
                (or one port of a container) are as welcome as any
    block_size  octets, the biggest ever agreed; the path's MTU less 32 limits it, too
    window      blocks, the biggest ever agreed, 1..64
    """

    transfers: int = 4096
    unproven: int = 1024
    address: int = 2048
    block_size: int = wire.MAX_BLOCK_SIZE
    window: int = engine.WINDOW_LIMIT


DEFAULT_LIMITS: Final = Limits()


@dataclass(slots=True)
class Counts:
    """Since the start, for whoever reports on the server's health.

    requests   read and write requests taken in; finished, failed: transfers; probed: size probes
    refused    requests answered with an ERROR, and datagrams that are none
    evicted    unproven transfers given up for newer ones; shed: requests dropped for want of a descriptor or a place
    foreign    datagrams to a transfer's port from somebody else
    peak       most transfers at once
    """

    requests: int = 0
    finished: int = 0
    failed: int = 0
    probed: int = 0
    refused: int = 0
    evicted: int = 0
    shed: int = 0
    foreign: int = 0
    receive_errors: int = 0
    send_errors: int = 0
    peak: int = 0


class TftpServer:
    """Serves read requests from the moment it is made. Everything but the constructor is for the loop's thread.

    listen       (address, port, interface) each: address is dotted, "0.0.0.0" for all; with an interface the socket
                 is bound to that device, "" leaves it open; port 0 takes any (see `ports`)
    resolve      looks names up. They come to it with backslashes turned to slashes, and without leading, trailing or
                 repeated slashes. If it has no such name, and that ends in octets that no name ends in, it is asked
                 again without those. It may raise OSError: a shortage of descriptors drops the request, so that the
                 client asks again
    single_port  transfers leave from the port listened on
    Raises OSError if an address cannot be had.
    """

    def __init__(
        self,
        loop: Loop,
        listen: Sequence[tuple[str, int, str]],
        resolve: TftpResolver,
        record: Record,
        *,
        limits: Limits = DEFAULT_LIMITS,
        single_port: bool = False,
    ) -> None:
        self.loop, self.limits, self.single_port = loop, limits, single_port
        self.record, self.counts, self.images = record, Counts(), Images()
        self._resolve = resolve
        self._doors: list[Door] = []
        self._tids: list[Door] = []
        self._transfers: dict[Key, _Transfer] = {}
        self._unproven: dict[_Transfer, None] = {}
        self._by_address: Counter[str] = Counter()
        self.answers: list[tuple[_Transfer, bytes | memoryview]] = []  # one datagram each, for `answer_all`
        self._netascii_sizes: dict[object, int] = {}
        self._refusals = Brake(loop, record, "tftp", 20)
        self._misses = Brake(loop, record, "tftp", 500)
        self._answers_to_foreign = Brake(loop, record, "tftp", 100)
        self._shed_told: Ns = -10 * S
        try:
            for address, port, interface in listen:
                door = Door(loop, (address, port), self.request, interface, shared=single_port, buffer=_LISTEN_BUFFER)
                self._doors.append(door)
            for _ in range(0 if single_port else _TIDS):
                self._tids.append(Door(loop, ("0.0.0.0", 0), self._foreign, shared=True))
        except OSError:
            self.close()
            raise
        for door in self._doors:
            record(Listening("", "tftp", door.address, door.port, door.interface))

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports listened on, in the order of `listen`."""
        return tuple(door.port for door in self._doors)

    @property
    def active(self) -> int:
        """Transfers under way."""
        return len(self._transfers)

    def progress(self) -> list[tuple[str, str, str, int]]:
        """(machine, "tftp", name, octets so far) of each transfer under way."""
        return [transfer.progress() for transfer in self._transfers.values()]

    def stop_accepting(self) -> None:
        """Take no new requests; what is under way goes on."""
        for door in self._doors:
            door.close()

    def close(self) -> None:
        """End at once; clients in the middle of a transfer are told."""
        for transfer in list(self._transfers.values()):
            transfer.give_up("the server stops", self.loop.now, tell=True)
        for door in self._doors + self._tids:
            door.close()

    # --- requests -----------------------------------------------------------------------------------------------

    def request(self, door: Door, data: bytes, key: Key, now: Ns) -> None:
        """A datagram came to a port listened on (or, in single-port mode, a request to a transfer's socket)."""
        opcode = data[:2]
        if opcode in (b"\0\3", b"\0\4", b"\0\6") and self.single_port:
            return self._foreign(door, data, key, now)
        if opcode not in (b"\0\1", b"\0\2"):
            # An ERROR is never answered, and the rest is no client of ours.
            return self._refuse(door, key, data, None, "not a request", now) if opcode != b"\0\5" else None
        self.counts.requests += 1
        if len(data) > wire.MAX_REQUEST:
            return self._refuse(door, key, data, wire.ILLEGAL, "request of more than 512 octets", now)
        running = self._transfers.get(key)
        if running is not None and running.asked_again(data, now):
            return None
        try:
            request = _parse(data)
        except WireError as error:
            return self._refuse(door, key, data, wire.ILLEGAL, str(error), now)
        if isinstance(request, wire.ReadRequest) and request.mode in (b"octet", b"netascii"):
            return self._read(door, key, request, data, now)
        if isinstance(request, wire.WriteRequest):
            return self._refuse(door, key, data, wire.ACCESS, "this server takes no files", now)
        return self._refuse(door, key, data, wire.ILLEGAL, "no such transfer mode", now)

    def answer_all(self) -> None:
        """Send what lies in `answers`, after everything that is there has been read.

        With an answer now and then between reads, a client on another processor falls asleep in between, and waking it
        costs whoever sends to it. What is read in a row and sent in a row keeps both sides busy, and caches warm.
        """
        answers, self.answers = self.answers, []  # taken first, or trouble here would keep all later ones waiting
        for transfer, datagram in answers:
            try:
                os.write(transfer.fd, datagram)
            except OSError:
                transfer.send_again(datagram, self.loop.now)

    def proven(self, transfer: _Transfer) -> None:
        """The client has acknowledged something: from now on nothing but itself ends the transfer."""
        self._unproven.pop(transfer, None)

    def ended(self, transfer: _Transfer) -> None:
        self._unproven.pop(transfer, None)
        if self._transfers.get(transfer.key) is transfer:
            del self._transfers[transfer.key]
            address = transfer.key[0]
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def tell_miss(self, fact: Fact, now: Ns) -> None:
        """Record a fact of a kind that anybody can cause in any number, as long as there are not too many."""
        self._misses.tell(fact, now)

    def _read(self, door: Door, key: Key, request: wire.ReadRequest, data: bytes, now: Ns) -> None:
        if len(self._transfers) >= self.limits.transfers and not self._evict(now):
            return self._shed("too many transfers", now)
        if self._by_address[key[0]] >= self.limits.address:
            return self._shed(f"too many transfers with {key[0]}", now)
        if len(self._unproven) >= self.limits.unproven:
            self._evict(now)
        try:
            content = self._open(request.filename, Peer(*key), now)
        except OSError as error:
            if error.errno in SHORTAGES:
                return self._shed(_why(error), now)
            content = Missing(_why(error), forbidden=error.errno in (errno.EACCES, errno.EPERM))
        if isinstance(content, Missing):
            self.counts.refused += 1
            code, text = (wire.ACCESS, b"not served") if content.forbidden else (wire.NOT_FOUND, b"no such file")
            door.send(wire.emit(wire.Error(code, text)), key)
            name = printable(request.filename)
            return self.tell_miss(NotFound(content.machine, "tftp", name, key[0], content.because), now)
        try:
            transfer = self._begin(door, key, request, data, content, now)
        except _Unwilling as error:
            content.close()
            return self._refuse(door, key, data, wire.ILLEGAL, str(error), now)
        except Changed:
            content.close()
            return self._refuse(door, key, data, wire.UNDEFINED, "the file is being changed", now)
        except OSError as error:
            content.close()
            if error.errno in SHORTAGES:
                return self._shed(_why(error), now)
            # No route, port 0, a broadcast address: nobody that could be answered.
            self.counts.send_errors += 1
            return self._refuse(door, key, data, None, _why(error), now)
        self._transfers[key] = transfer
        self._by_address[key[0]] += 1
        self._unproven[transfer] = None
        self.counts.peak = max(self.counts.peak, len(self._transfers))
        return transfer.start(now)

    def _open(self, filename: bytes, peer: Peer, now: Ns) -> Content | Missing:
        """Look the name up. When descriptors are short, the oldest stranger's go to this one."""
        try:
            return self._look_up(filename, peer)
        except OSError as error:
            if error.errno not in SHORTAGES or not self._evict(now):
                raise
            return self._look_up(filename, peer)

    def _look_up(self, filename: bytes, peer: Peer) -> Content | Missing:
        name = b"/".join(part for part in filename.replace(b"\\", b"/").split(b"/") if part)
        found = self._resolve(name, peer)
        bare = name.rstrip(_JUNK)
        if isinstance(found, Missing) and bare and bare != name:
            # Intel, Kontron, Jetway and Lenovo T460 ROMs append 0xFF or worse to a name from option 67 without NUL.
            again = self._resolve(bare, peer)
            return found if isinstance(again, Missing) else again
        return found

    def _begin(
        self, door: Door, key: Key, request: wire.ReadRequest, data: bytes, content: Content, now: Ns
    ) -> _Transfer:
        """Raises _Unwilling, Changed, OSError; nothing is left open then but the content."""
        octets = Octets(content)
        netascii = request.mode == b"netascii"
        size = self._netascii_size(octets) if netascii else octets.size
        sock = self._connect(door, key, now)
        try:
            mtu = sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
            block_limit = min(self.limits.block_size, mtu - _HEADERS)
            terms = _terms(request.options, size, block_limit, self.limits.window)
            block_size = terms.agreed.block_size
            source = Netascii(octets, size, block_size) if netascii else Plain(octets, block_size)
            return _Transfer(self, door, sock, key, data, content, octets, source, terms, size, now)
        except BaseException:
            sock.close()
            raise

    def _netascii_size(self, octets: Octets) -> int:
        if octets.size > NETASCII_LIMIT:
            raise _Unwilling("too long for netascii, ask for octet mode")
        key = (octets.key, octets.state)
        size = self._netascii_sizes.get(key) if octets.key is not None else None
        if size is None:
            size = netascii_size(octets)
            if len(self._netascii_sizes) >= 256:
                self._netascii_sizes.clear()
            self._netascii_sizes[key] = size
        return size

    def _connect(self, door: Door, key: Key, now: Ns) -> socket.socket:
        """A socket between this client and the address it asked, and nobody else. Raises OSError."""
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        try:
            sock = socket.socket(socket.AF_INET, kind)
        except OSError:
            if not self._evict(now):
                raise
            sock = socket.socket(socket.AF_INET, kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # "Don't fragment" confuses some ROMs: routers behind us may cut what does not fit.
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            if door.interface:
                with contextlib.suppress(PermissionError):  # without CAP_NET_RAW any more: routes decide, as for others
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, door.interface.encode())
            sock.bind((key[2], door.port if self.single_port else self._tids[os.urandom(1)[0] % _TIDS].port))
            sock.connect((key[0], key[1]))
        except BaseException:
            sock.close()
            raise
        return sock

    # --- what is not served -------------------------------------------------------------------------------------

    def _foreign(self, door: Door, data: bytes, key: Key, now: Ns) -> None:
        """A datagram to a transfer's port from somebody who has no transfer there (RFC 1350 section 4)."""
        self.counts.foreign += 1
        if data[:2] in (b"\0\3", b"\0\4", b"\0\6") and self._answers_to_foreign.free(now):
            door.send(_UNKNOWN_TID, key)

    def _refuse(self, door: Door, key: Key, data: bytes, code: int | None, because: str, now: Ns) -> None:
        self.counts.refused += 1
        if code is not None:
            door.send(wire.emit(wire.Error(code, because.encode()[:_TEXT])), key)
        self._refusals.tell(Refused("", "tftp", key[0], because, printable(data[:64])), now)

    def _evict(self, now: Ns) -> bool:
        """Give up the oldest unproven transfer; False if there is none."""
        for transfer in self._unproven:
            self.counts.evicted += 1
            transfer.give_up("never acknowledged, and others wait", now, tell=False)
            return True
        return False

    def _shed(self, because: str, now: Ns) -> None:
        """Drop a request in silence: the client asks again, and an ERROR would end its boot."""
        self.counts.shed += 1
        if now - self._shed_told >= 10 * S:
            self._shed_told = now
            fix = "" if because.startswith("too many transfers") else "ulimit -n 16384"
            self.record(Warned("", f"tftp: {self.counts.shed} requests dropped until now: {because}", fix))


class _Transfer:
    """One file on its way to one client."""

    __slots__ = (
        "_asked",
        "_burst",
        "_content",
        "_door",
        "_image",
        "_name",
        "_octets",
        "_request",
        "_sender",
        "_server",
        "_size",
        "_sock",
        "_source",
        "_started_at",
        "_stride",
        "_terms",
        "_timer",
        "_told",
        "fd",
        "key",
    )

    def __init__(
        self,
        server: TftpServer,
        door: Door,
        sock: socket.socket,
        key: Key,
        request: bytes,
        content: Content,
        octets: Octets,
        source: Source,
        terms: _Terms,
        size: int,
        now: Ns,
    ) -> None:
        self.key = key
        self._server, self._door, self._sock, self._request = server, door, sock, request
        self._content, self._octets, self._source, self._terms = content, octets, source, terms
        self._size, self._started_at = size, now
        self._asked = 1  # how often, before the client was heard again
        self._sender = engine.Sender(size, terms.agreed)
        self.fd = sock.fileno()  # -1 once closed
        self._stride = terms.agreed.block_size + wire.HEADER
        self._burst = 1  # blocks a send may hold
        self._image: Image | None = None
        self._told = False  # the journal knows of the transfer
        self._timer: Timer | None = None

    def progress(self) -> tuple[str, str, str, int]:
        return self._content.machine, "tftp", self._content.name, self._sender.acknowledged

    def start(self, now: Ns) -> None:
        self._server.loop.watch(self.fd, IN, self.on_ready, often=True)
        self._transmit(self._sender.start(now), now)
        self._wait()

    def on_ready(self, _events: int, now: Ns) -> bool:
        """A datagram came from the client; there may be more. This is the hot path: an ACK in, a window out.

        Returns whether there was one.
        """
        sender, fd = self._sender, self.fd
        try:
            data = os.read(fd, _DATAGRAM)
        except OSError as error:
            return self._received_trouble(error, now)
        opcode, block = _unpack(data) if len(data) == 4 else (0, 0)
        if opcode != 4:
            self._received_oddly(data, now)
            return True
        count = sender.acked(block, now)
        if count:
            image = self._image
            if image is not None and count <= self._burst:
                stride = image.stride
                begin = sender.base * stride
                end = begin + count * stride
                if end <= image.ready:
                    if count == 1:
                        self._answer(image.view[begin:end])
                        return True
                    try:
                        os.write(fd, image.view[begin:end])
                    except OSError:
                        self._put_all(image.view[begin:end], now)
                    return True
            self._transmit(count, now)
        elif sender.outcome is not None:
            self._end(now)
        return True

    def _answer(self, datagram: bytes | memoryview) -> None:
        """Send it after everything that is there has been read."""
        server = self._server
        if not server.answers:
            server.loop.next(server.answer_all)
        server.answers.append((self, datagram))

    def send_again(self, datagram: bytes | memoryview, now: Ns) -> None:
        """The kernel did not take one datagram: once more, and without segments if the path has none."""
        if self.fd < 0:  # ended meanwhile
            return
        if not self._put(datagram):
            self._put(datagram)
        if self._sender.outcome is not None:
            self._end(now)

    def asked_again(self, request: bytes, now: Ns) -> bool:
        """The client sent a request while this transfer runs. False: that has ended, or is given up now."""
        self._catch_up(now)
        if self.fd < 0:
            return False
        if request == self._request:
            if not self._sender.proven:
                self._asked += 1
                if self._asked == _DEAF_AFTER:  # said now: by the end of this transfer it has given up long ago
                    self._record_failure(f"asked for {_DEAF_AFTER} times, and no answer was acknowledged", now)
                self._transmit(self._sender.repeated(now), now)
                return True
            if now - self._sender.progress_at < _RESET_AFTER:
                return True
        self.give_up("the client started over", now, tell=False)
        return False

    def _catch_up(self, now: Ns) -> None:
        """Take what the client sent before it asked for something else: in a crowd that request may be read first, and
        the ERROR that ended this transfer still lies at our own socket."""
        for _ in range(0 if self._server.single_port else _CATCH_UP):
            if not self.on_ready(0, now) or self.fd < 0:
                return

    def give_up(self, because: str, now: Ns, *, tell: bool) -> None:
        """End it on our side; `tell` the client why."""
        if tell:
            self._put_error(because)
        self._server.counts.failed += 1
        self._close()
        self._record_failure(because, now)

    # --- sending ------------------------------------------------------------------------------------------------

    def _transmit(self, count: int, now: Ns) -> None:
        """Send `count` blocks from the engine's `first` on."""
        sender = self._sender
        if sender.first == 0 or not count:
            if count:
                self._answer(self._terms.oack)
        else:
            try:
                if sender.proven and not self._told:
                    self._prove(now)
                self._transmit_blocks(sender.first, count, now)
            except Changed:
                if self._image is not None:
                    self._server.images.forget(self._image)
                return self.give_up("the file was changed meanwhile", now, tell=True)
            except OSError as error:
                return self.give_up(f"reading failed: {_why(error)}", now, tell=True)
        if sender.outcome is not None:
            self._end(now)
        return None

    def _transmit_blocks(self, first: int, count: int, now: Ns) -> None:
        """Raises Changed, OSError where reading fails."""
        image, stride, after = self._image, self._stride, first + count
        if image is None and isinstance(self._source, Plain) and first & _REJOIN < count:
            image = self._image = self._server.images.join(self._octets, self._terms.agreed.block_size)
        if image is None:
            datagrams: bytes | memoryview = self._source.take(first, count)
        else:
            image.fill(self._octets, after - 1)
            datagrams = image.view[(first - 1) * stride : (after - 1) * stride]
        if count == 1:
            self._answer(datagrams)
        else:
            self._put_all(datagrams, now)
        if image is None:
            return
        if self.fd >= 0:  # while the client is busy with that
            image.fill(self._octets, after - 1 + image.ahead)

    def _put_all(self, datagrams: bytes | memoryview, now: Ns) -> None:
        """Send them in as few pieces as the path takes."""
        at = 0
        while at < len(datagrams):
            piece = datagrams[at : at + self._burst * self._stride]
            if self._put(piece):
                at += len(piece)
        if self._sender.outcome is not None:
            self._end(now)

    def _put_error(self, because: str) -> None:
        if self._burst > 1:
            self._segment(0)  # or a long text comes in pieces
        self._put(wire.emit(wire.Error(wire.UNDEFINED, because.encode()[:_TEXT])))

    def _segment(self, octets: int) -> None:
        """Let the kernel cut what is sent into datagrams of so many octets; 0 sends everything as it is."""
        try:
            self._sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, octets)
        except OSError:  # Linux before 4.18
            octets = 0
        self._burst = max(1, min(_SEGMENTS, _SEGMENTS_OCTETS // octets)) if octets else 1

    def _put(self, piece: bytes | memoryview) -> bool:
        """One send. False: the path cannot do segments, so try again in smaller pieces."""
        try:
            os.write(self.fd, piece)
        except OSError as error:
            self._server.counts.send_errors += 1
            if self._burst > 1 and error.errno in (errno.EMSGSIZE, errno.EINVAL, errno.EIO):
                self._segment(0)
                return False
            if error.errno == errno.ECONNREFUSED:  # what an earlier datagram met; this one has not left
                self._sender.unreachable()
            # Anything else (a full queue, no route, a firewall) is a lost datagram.
        return True

    # --- receiving ----------------------------------------------------------------------------------------------

    def _received_trouble(self, error: OSError, now: Ns) -> bool:
        """Reading failed. True: there may be more to read."""
        if error.errno == errno.EAGAIN:
            return False
        self._server.counts.receive_errors += 1
        if error.errno == errno.ECONNREFUSED:
            self._sender.unreachable()
            if self._sender.outcome is not None:
                self._end(now)
        return self.fd >= 0

    def _received_oddly(self, data: bytes, now: Ns) -> None:
        """Anything but a plain ACK."""
        if data[:2] in (b"\0\1", b"\0\2"):  # in single-port mode; to another transfer's port it makes no sense
            if not self._server.single_port:
                return
            if len(data) == _DATAGRAM:  # cut short, so let the client ask again
                self.give_up("the client started over", now, tell=False)
            else:
                self._server.request(self._door, data, self.key, now)
            return
        try:
            message = wire.parse(data)
        except WireError:
            return
        if isinstance(message, wire.Ack):
            self._transmit(self._sender.acked(message.block, now), now)
        elif isinstance(message, wire.Error):
            self._sender.aborted(message.code, message.text)
            self._end(now)

    # --- time ---------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Look again when the engine is due as of now. Its deadline moves with every ACK, this timer does not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sender.deadline is not None and self.fd >= 0:
            self._timer = self._server.loop.at(self._sender.deadline, self._on_timer)

    def _on_timer(self, now: Ns) -> None:
        sender = self._sender
        if sender.deadline is not None and sender.deadline <= now:
            for _ in range(_DATAGRAMS_A_TURN):  # an ACK that is here already, while we were late, makes it no loss
                if not self.on_ready(0, now) or self.fd < 0:
                    break
        if sender.deadline is not None and sender.deadline <= now:
            self._transmit(sender.tick(now), now)
        self._wait()

    # --- the record ---------------------------------------------------------------------------------------------

    def _prove(self, now: Ns) -> None:
        """The first ACK came: the client is real, so the file may cost something now."""
        self._told = True
        server, agreed = self._server, self._terms.agreed
        server.proven(self)
        if agreed.window > 1:
            self._segment(self._stride)
        if isinstance(self._source, Plain):
            self._image = server.images.borrow(self._octets, agreed.block_size)
        content = self._content
        server.record(TransferStarted(content.machine, "tftp", content.name, self.key[0], self._size, self._terms.text))
        self._wait()  # the time-out is no longer the one of a stranger

    def _end(self, now: Ns) -> None:
        """The engine has come to an outcome."""
        sender, counts, content = self._sender, self._server.counts, self._content
        outcome = sender.outcome
        if outcome is None or self.fd < 0:
            return
        if isinstance(outcome, engine.Stalled):
            self._put_error("timed out")
        if isinstance(outcome, engine.Finished) and not self._told:
            self._prove(now)
        self._close()
        seconds = (now - self._started_at) / S
        match outcome:
            case engine.Finished(confirmed):
                counts.finished += 1
                self._server.record(
                    TransferDone(
                        content.machine,
                        "tftp",
                        content.name,
                        self.key[0],
                        self._size,
                        seconds,
                        sender.resent,
                        confirmed,
                    )
                )
            case engine.Probed():
                counts.probed += 1
                self._server.tell_miss(SizeProbed(content.machine, content.name, self.key[0], self._size), now)
            case engine.Aborted(code, text):
                counts.failed += 1
                self._record_failure(f"the client ended it: ERROR {code} {printable(text, 100)}".rstrip(), now)
            case engine.Unanswered():
                counts.failed += 1
                if self._asked < _DEAF_AFTER:
                    self._record_failure("never acknowledged", now)
            case engine.Stalled(block):
                counts.failed += 1
                self._record_failure(f"no ACK of block {block} for {engine.PATIENCE // S} s", now)
            case engine.Unreachable():
                counts.failed += 1
                self._record_failure("the client's port is closed", now)
            case never:
                assert_never(never)

    def _record_failure(self, because: str, now: Ns) -> None:
        content, seconds = self._content, (now - self._started_at) / S
        fact = TransferFailed(
            content.machine, "tftp", content.name, self.key[0], self._sender.acknowledged, seconds, because
        )
        if self._told:
            self._server.record(fact)
        else:
            self._server.tell_miss(fact, now)

    def _close(self) -> None:
        """Give everything back. Safe to call twice."""
        if self.fd < 0:
            return
        self._server.loop.unwatch(self.fd)
        self._sock.close()
        self.fd = -1
        self._content.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._image is not None:
            self._server.images.give_back(self._image)
            self._image = None
        self._server.ended(self)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What was agreed, the OACK that says so, and how the journal does."""

    agreed: engine.Agreed
    oack: bytes
    text: str


# A storm is a thousand machines that send the same request octet for octet.
_parse = functools.lru_cache(maxsize=256)(wire.parse)


@functools.lru_cache(maxsize=256)
def _terms(options: wire.Options, size: int, block_limit: int, window_limit: int) -> _Terms:
    agreed = engine.agree(options, size=size, block_limit=block_limit, window_limit=window_limit)
    text = ", ".join(f"{name.decode()} {value.decode()}" for name, value in agreed.answer)
    return _Terms(agreed, wire.emit(wire.OptionAck(agreed.answer)), text)


def _why(error: OSError) -> str:
    return error.strerror or str(error)


class _Unwilling(Exception):
    """We could, but will not; the text is for the client."""


_UNKNOWN_TID: Final = wire.emit(wire.Error(wire.UNKNOWN_TID, b"unknown transfer"))
