"""Firmware personas over this machine's kernel: each on a network interface of its own, all in one loop.

DHCP before there is an address goes as frames through one packet socket on the link that the interfaces share; all
else through sockets bound to the persona's interface and address.

One process plays many machines and may come to a datagram late, which the machine would not have. So a persona's clock
shows when a datagram arrived, as the kernel noted it, and a time-out counts only against what had not arrived by then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import socket
import struct
import time
import urllib.parse
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bootwire.engine import Ns, tftp
from bootwire.engine import http_client as http
from bootwire.preboot.personas import steps, transfers
from bootwire.preboot.personas.steps import Machine, Outcome, Persona
from bootwire.serve import bpf, loop
from bootwire.serve.capture_socket import SO_TIMESTAMPNS, packet_socket
from bootwire.serve.interfaces import Interface
from bootwire.wire import dhcp4, ethernet, ip
from bootwire.wire.reader import WireError

BURST = 64  # datagrams read before others get their turn
READ = 256 * 1024  # octets of one read from a TCP connection
LARGEST = 65536  # octets of a datagram or frame
QUEUE = 64  # datagrams kept for a persona that is not waiting for one
FRAMES = 4 << 20  # octets of the packet socket's queue: hundreds of machines that are answered at once

# linux/sockios.h
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C


@dataclass(slots=True)
class File:
    """One file that a machine asked for. how: "tftp" or "http"; octets: of the body; seconds: until it was there."""

    how: str
    name: str
    octets: int
    sha256: str
    seconds: float
    repeats: int
    trouble: str = ""


@dataclass(slots=True)
class Station:
    """A machine at work.

    interface  its own; its station address is the machine's
    outcome    None while it boots
    screen     what it has shown
    files      what it has fetched, in order; size probes and HEADs are not files
    """

    machine: Machine
    interface: str
    persona: Persona
    began: Ns = 0
    ended: Ns = 0
    outcome: Outcome | None = None
    screen: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    inbox: deque[tuple[steps.Datagram, Ns]] = field(default_factory=lambda: deque(maxlen=QUEUE))
    waiting: steps.Await | None = None
    timer: loop.Timer | None = None
    ports: dict[int, socket.socket] = field(default_factory=dict)
    kept: dict[str, socket.socket] = field(default_factory=dict)


class Personas:
    """Runs personas in `loop` until each has ended; then calls `ended` with its station.

    link  the interface whose frames all the stations' interfaces share (the parent of macvlans, or the only one)
    """

    def __init__(self, on: loop.Loop, link: Interface, ended: Callable[[Station], None]) -> None:
        self._loop = on
        self._link = link
        self._ended = ended
        self._by_mac: dict[bytes, Station] = {}
        self._buffer = bytearray(READ)
        self._frames = packet_socket(
            link, socket.SOCK_RAW, ethernet.IPV4, bpf.udp_to(dhcp4.CLIENT_PORT), FRAMES
        )  # fmt: skip
        self._frames.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        on.watch(self._frames.fileno(), loop.IN, self._hear)

    def power_on(self, machine: Machine, interface: str, persona: Persona) -> Station:
        """Begin a boot; the interface must be up and have the machine's station address."""
        station = Station(machine, interface, persona, began=self._loop.now)
        self._by_mac[machine.mac] = station
        self._step(station, None, first=True)
        return station

    def close(self) -> None:
        self._loop.unwatch(self._frames.fileno())
        self._frames.close()

    # --- steps --------------------------------------------------------------------------------------------------

    def _step(self, station: Station, answer: steps.Answer, *, first: bool = False, at: Ns | None = None) -> None:
        """Resume a persona with an answer that came `at` some moment (None: now), and do what it asks until it has to
        wait."""
        station.machine.now = max(station.machine.now, time.monotonic_ns() if at is None else at)
        try:
            while True:
                request = next(station.persona) if first else station.persona.send(answer)
                first, answer = False, None
                match request:
                    case steps.Show(text):
                        station.screen.append(text)
                    case steps.Configure(address, mask):
                        self._configure(station, address, mask)
                    case steps.SendUdp():
                        self._send(station, request)
                    case steps.Await():
                        answer = self._await(station, request)
                        if answer is None:
                            return
                    case steps.TftpGet():
                        _TftpTransfer(self._loop, station, request, self._step)
                        return
                    case steps.HttpGet():
                        _HttpTransfer(self._loop, station, request, self._buffer, self._step)
                        return
        except StopIteration as end:
            station.outcome = end.value
            station.ended = time.monotonic_ns()
            self._by_mac.pop(station.machine.mac, None)
            for port in list(station.ports):
                self._close_port(station, port)
            for kept in station.kept.values():
                kept.close()
            station.kept.clear()
            self._ended(station)

    def _await(self, station: Station, wanted: steps.Await) -> steps.Datagram | None:
        """A datagram that is there already, or None: the persona is resumed by the next, or when time is up."""
        while station.inbox and station.inbox[0][1] <= wanted.until:
            datagram, at = station.inbox.popleft()
            if datagram.to_port in wanted.ports:
                station.machine.now = max(station.machine.now, at)
                return datagram
        station.waiting = wanted

        def over(now: Ns) -> None:
            self._hear(loop.IN, now)
            for port in tuple(station.ports):
                self._read(station, port, loop.IN, now)
            if station.waiting is wanted:
                station.waiting = station.timer = None
                self._step(station, None, at=wanted.until)

        station.timer = self._loop.at(wanted.until, over)
        return None

    def _arrived(self, station: Station, datagram: steps.Datagram, at: Ns) -> None:
        if station.waiting is None or at > station.waiting.until:
            station.inbox.append((datagram, at))
        elif datagram.to_port in station.waiting.ports:
            assert station.timer is not None
            station.timer.cancel()
            station.waiting = station.timer = None
            self._step(station, datagram, at=at)

    # --- DHCP ---------------------------------------------------------------------------------------------------

    def _hear(self, _events: int, _now: Ns) -> None:
        while True:
            try:
                frame, ancillary, _, _ = self._frames.recvmsg(LARGEST, 256)
            except BlockingIOError:
                return
            at = _arrival(ancillary)
            with contextlib.suppress(WireError):
                outer = ip.parse_ipv4(frame[14:])
                inner = ip.parse_udp(outer.payload, outer.source, outer.destination, verify=False)
                station = self._by_mac.get(inner.payload[28:34])  # chaddr: who it is for, broadcast or not
                if station is None or frame[:6] not in (ethernet.BROADCAST, station.machine.mac):
                    continue
                if ip.v4_text(outer.destination) == station.machine.address and station.ports:
                    continue  # its socket has it
                source = ip.v4_text(outer.source)
                self._arrived(station, steps.Datagram(inner.payload, source, inner.source, inner.destination), at)

    def _send(self, station: Station, send: steps.SendUdp) -> None:
        ours = station.ports.get(send.port)
        if send.to == "255.255.255.255":
            source, to = ip.v4_octets(send.source), ip.BROADCAST_V4
            datagram = ip.emit_udp(ip.Udp(send.port, send.to_port, send.data), source, to)
            packet = ip.emit_ipv4(ip.Ipv4(source, to, ip.UDP, datagram))
            frame = ethernet.Frame(ethernet.BROADCAST, station.machine.mac, ethernet.IPV4, packet)
            with contextlib.suppress(BlockingIOError):  # a full queue loses it, as a wire would
                self._frames.send(ethernet.emit(frame))
        elif ours is not None:
            with contextlib.suppress(OSError):  # unreachable: no answer will come
                ours.sendto(send.data, (send.to, send.to_port))

    def _configure(self, station: Station, address: str, mask: str) -> None:
        for port in list(station.ports):
            self._close_port(station, port)
        for kept in station.kept.values():
            kept.close()
        station.kept.clear()
        _set_address(station.interface, address, mask or "255.255.255.0")
        if address == "0.0.0.0":
            return
        for port in (dhcp4.CLIENT_PORT, dhcp4.PXE_PORT):
            opened = _bound(station, socket.SOCK_DGRAM, port)
            opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            station.ports[port] = opened
            self._loop.watch(opened.fileno(), loop.IN, functools.partial(self._read, station, port))

    def _read(self, station: Station, port: int, _events: int, _now: Ns) -> None:
        for _ in range(BURST):
            sock = station.ports.get(port)
            if sock is None:
                return
            try:
                data, ancillary, _, (source, source_port) = sock.recvmsg(LARGEST, 256)
            except BlockingIOError:
                return
            except OSError:
                continue
            self._arrived(station, steps.Datagram(data, source, source_port, port), _arrival(ancillary))

    def _close_port(self, station: Station, port: int) -> None:
        sock = station.ports.pop(port)
        self._loop.unwatch(sock.fileno())
        sock.close()


# --- transfers --------------------------------------------------------------------------------------------------

Done = Callable[[Station, steps.Answer], None]


class _Sink:
    """Counts and digests a file, and keeps its beginning for the persona."""

    __slots__ = ("_digest", "_kept", "_room", "octets")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._kept: list[bytes] = []
        self._room = steps.KEEP
        self.octets = 0

    def write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self.octets += len(data)
        if self._room > 0:
            kept = bytes(data[: self._room])
            self._kept.append(kept)
            self._room -= len(kept)

    def fetched(self, status: int, headers: tuple[tuple[str, str], ...], repeats: int) -> steps.Fetched:
        return steps.Fetched(self.octets, self._digest.hexdigest(), b"".join(self._kept), status, headers, repeats)


class _TftpTransfer:
    """One TftpGet."""

    def __init__(self, on: loop.Loop, station: Station, wanted: steps.TftpGet, done: Done) -> None:
        self._loop, self._station, self._wanted, self._done = on, station, wanted, done
        self._began = time.monotonic_ns()
        self._sink = _Sink()
        self._repeats = 0
        self._ended = False
        self._timer: loop.Timer | None = None
        self._receiver = tftp.Receiver(transfers.tftp_wanted(wanted))
        self._socket = _bound(station, socket.SOCK_DGRAM, wanted.port)
        on.watch(self._socket.fileno(), loop.IN, self._ready)
        self._send(self._receiver.start(self._began))
        self._arm()

    def _ready(self, _events: int, _now: Ns) -> None:
        now = time.monotonic_ns()  # the round's own moment may be long ago: others have read megabytes since
        for _ in range(BURST):
            try:
                data, source = self._socket.recvfrom(READ)
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                return self._end(steps.NotFetched("unreachable"))
            packets = self._receiver.receive(data, source, now)
            if self._wanted.probe is not None and data[:2] == b"\0\6":
                return self._hang_up(source)
            self._send(packets)
            for payload in self._receiver.take():
                self._sink.write(payload)
            if self._receiver.outcome is not None:
                return self._over(self._receiver.outcome)
        self._arm()
        return None

    def _tick(self, now: Ns) -> None:
        packets = self._receiver.tick(now)
        self._repeats += len(packets)
        self._send(packets)
        if self._receiver.outcome is not None:
            self._over(self._receiver.outcome)
        else:
            self._arm(renew=True)

    def _arm(self, *, renew: bool = False) -> None:
        """One timer that looks again when it is due: a deadline that only moves on needs no new one."""
        due = self._receiver.deadline
        if due is not None and (self._timer is None or renew):
            self._timer = self._loop.at(due, self._due)

    def _due(self, now: Ns) -> None:
        due = self._receiver.deadline
        if due is not None and due <= now:
            self._ready(loop.IN, now)  # what has arrived by now was in time
            if self._receiver.outcome is not None or self._ended:
                return
            due = self._receiver.deadline
        if due is not None and due > now:
            self._timer = self._loop.at(due, self._due)
        else:
            self._tick(now)

    def _send(self, packets: list[tftp.Packet]) -> None:
        for packet in packets:
            to = packet.to if isinstance(packet.to, tuple) else (self._wanted.server, transfers.TFTP_PORT)
            with contextlib.suppress(OSError):  # full or unreachable: as lost on the wire
                self._socket.sendto(packet.data, to)

    def _hang_up(self, source: tuple[str, int]) -> None:
        assert self._wanted.probe is not None
        error, answer = transfers.hang_up(self._receiver, self._wanted.probe, self._repeats)
        with contextlib.suppress(OSError):
            self._socket.sendto(error, source)
        self._end(answer)

    def _over(self, verdict: tftp.Verdict) -> None:
        match verdict:
            case tftp.Received() if self._wanted.probe is not None:
                self._end(steps.Fetched(-1, repeats=self._repeats))  # a server without options sent it all
            case tftp.Received():
                self._end(self._sink.fetched(200, (), self._repeats))
            case _:
                self._end(transfers.tftp_failed(verdict, self._repeats))

    def _end(self, answer: steps.Fetched | steps.NotFetched) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        if self._wanted.probe is None:
            _note(self._station, "tftp", self._wanted.name.decode("latin-1"), self._began, answer)
        self._done(self._station, answer)


class _HttpTransfer:
    """One HttpGet, on a connection that the station keeps if both sides want to."""

    def __init__(
        self, on: loop.Loop, station: Station, wanted: steps.HttpGet, buffer: bytearray, done: Done
    ) -> None:  # fmt: skip
        self._loop, self._station, self._wanted, self._done = on, station, wanted, done
        self._view = memoryview(buffer)
        self._began = time.monotonic_ns()
        self._sink = _Sink()
        self._socket: socket.socket | None = None
        self._key = ""
        self._connecting = False
        self._out = b""
        self._ended = False
        self._timer: loop.Timer | None = None
        self._fetch = http.Fetch(
            http.Wanted(
                wanted.url, wanted.method, wanted.headers,
                limit=wanted.limit, idle=wanted.idle, redirects=wanted.redirects,
            ),
            lambda: station.machine.rng.randbytes(8).hex(),
        )  # fmt: skip
        self._perform(self._fetch.start(self._began))

    def _perform(self, effects: list[http.Effect]) -> None:
        for effect in effects:
            match effect:
                case http.Body(data):
                    self._sink.write(data)
                case http.Open():
                    return self._open(effect)
                case http.Write(data):
                    self._out += data
                    self._flush()
                case http.Release(keep):
                    self._release(keep)
                case http.Finished(response):
                    headers = tuple(response.headers.items())
                    return self._end(self._sink.fetched(response.status, headers, 0))
                case http.Failed(why, detail):
                    return self._end(transfers.http_failed(why, detail))
                case http.Began() | http.Secure():
                    pass
        if self._timer is None and self._fetch.deadline is not None:
            self._timer = self._loop.at(self._fetch.deadline, self._due)
        return None

    def _due(self, now: Ns) -> None:
        self._timer = None
        if self._socket is not None and not self._connecting:
            self._ready(loop.IN, now)  # what has arrived by now was in time
        if not self._ended:
            self._perform(self._fetch.tick(time.monotonic_ns()))

    def _open(self, effect: http.Open) -> None:
        self._key = effect.key
        kept = self._station.kept.pop(effect.key, None)
        if kept is not None:
            self._watch(kept, loop.IN)
            return self._perform(self._fetch.opened(time.monotonic_ns(), reused=True))
        made = _bound(self._station, socket.SOCK_STREAM, 0)
        self._connecting = True
        try:
            made.connect((effect.host, effect.port))
        except BlockingIOError:
            pass
        except OSError as error:
            made.close()
            return self._perform(self._fetch.unreachable(str(error), time.monotonic_ns()))
        self._watch(made, loop.IN | loop.OUT)
        return None

    def _watch(self, sock: socket.socket, events: int) -> None:
        self._socket = sock
        self._loop.watch(sock.fileno(), events, self._ready)

    def _ready(self, _events: int, now: Ns) -> None:
        assert self._socket is not None
        if self._connecting:
            trouble = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if trouble:
                self._release(False)
                return self._perform(self._fetch.unreachable(errno.errorcode.get(trouble, str(trouble)), now))
            self._connecting = False
            self._loop.rewatch(self._socket.fileno(), loop.IN)
            return self._perform(self._fetch.opened(now))
        if self._out:
            self._flush()
        try:
            size = self._socket.recv_into(self._view)
        except BlockingIOError:
            return None
        except OSError:
            size = 0
        return self._perform(self._fetch.receive(self._view[:size], now) if size else self._fetch.closed(now))

    def _flush(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError, OSError):
            self._out = self._out[self._socket.send(self._out) :]
        self._loop.rewatch(self._socket.fileno(), loop.IN | (loop.OUT if self._out else 0))

    def _release(self, keep: bool) -> None:
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._loop.unwatch(sock.fileno())
        if keep:
            self._station.kept[self._key] = sock
        else:
            sock.close()

    def _end(self, answer: steps.Fetched | steps.NotFetched) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._release(False)
        if self._wanted.method != "HEAD":
            _note(self._station, "http", urllib.parse.urlsplit(self._wanted.url).path, self._began, answer)
        self._done(self._station, answer)


# --- helpers ----------------------------------------------------------------------------------------------------


def _note(station: Station, how: str, name: str, began: Ns, answer: steps.Fetched | steps.NotFetched) -> None:
    seconds = (time.monotonic_ns() - began) / 1e9
    if isinstance(answer, steps.Fetched):
        trouble = "" if answer.status < 300 else f"status {answer.status}"
        file = File(how, name, answer.octets, answer.sha256, seconds, answer.repeats, trouble)
    else:
        trouble = f"{answer.why} {answer.code} {answer.text}"
        file = File(how, name, 0, "", seconds, answer.repeats, trouble)
    station.files.append(file)


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> Ns:
    """When the kernel took a datagram in, on the clock that the loop counts by."""
    now = time.monotonic_ns()
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) == 16:
            seconds, nanoseconds = struct.unpack("@qq", data)
            arrived: Ns = seconds * 1_000_000_000 + nanoseconds - time.time_ns() + now
            return min(now, arrived)
    return now


def _bound(station: Station, kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket on the station's interface and address."""
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, station.interface.encode())
        made.bind((station.machine.address, port))
    except OSError:
        made.close()
        raise
    return made


def _set_address(interface: str, address: str, mask: str) -> None:
    """Give an interface its one IPv4 address, "0.0.0.0" for none (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, mask)):
            sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, struct.pack("16s16s", interface.encode(), sockaddr))
            if address == "0.0.0.0":
                break
