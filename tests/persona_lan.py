"""A network in virtual time: personas on one side, an ordinary DHCP server and Bootwire's core on the other.

No sockets and no clock: the same seed gives the same packets at the same nanoseconds.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
import struct
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import firmware_story
from bootwire.assets import scripts
from bootwire.boot_server import BootServer, Datagram, Send, Settings, split_machine
from bootwire.engine import MS, Ns, S
from bootwire.facts import Fact
from bootwire.policy.decide import LOADERS, Offerings
from bootwire.preboot.personas import steps
from bootwire.preboot.personas.steps import Machine, Outcome, Persona
from bootwire.wire import dhcp4

LATENCY: Ns = 1 * MS
PATIENCE: Ns = 3000 * S  # of virtual time; every boot has ended by then
OURS = "192.0.2.10"
ROUTER = "192.0.2.1"  # and the ordinary DHCP server
MAC = bytes.fromhex("525400123456")


def pe(machine: int = 0x8664, octets: int = 200_000) -> bytes:
    """A file that a UEFI firmware of that processor would start."""
    return (b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", machine)).ljust(octets, b"\x90")


def bzimage(octets: int = 300_000) -> bytes:
    """A file that iPXE takes for a Linux kernel with an EFI stub."""
    data = bytearray(pe(octets=octets))
    data[0x202:0x206] = b"HdrS"
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Seen:
    """A datagram on the wire. who: the machine's MAC, "" for a server."""

    at: Ns
    who: str
    source: tuple[str, int]
    to: tuple[str, int]
    data: bytes

    @property
    def message(self) -> dhcp4.Message:
        return dhcp4.parse(self.data)


@dataclass(slots=True)
class _Station:
    machine: Machine
    persona: Persona
    inbox: list[steps.Datagram] = field(default_factory=list)
    waiting: steps.Await | None = None
    outcome: Outcome | None = None
    screen: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)  # all that it sent, as firmware_story puts it


Reply = tuple[tuple[str, int], tuple[str, int], bytes]  # source, destination, payload
Server = Callable[[Seen], Iterable[Reply]]


class Lan:
    """All stations hear broadcasts; a unicast frame goes to whose address, or whose chaddr, it has."""

    def __init__(self, *servers: Server) -> None:
        self.now: Ns = 0
        self.wire: list[Seen] = []
        self.tftp: Callable[[bytes, str], bytes | None] = lambda name, peer: None
        self.http: Callable[[str, str], bytes | int] = lambda url, peer: 404
        self._servers = servers
        self._stations: list[_Station] = []
        self._queue: list[tuple[Ns, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def boot(
        self,
        persona: Callable[..., Persona],
        *,
        mac: bytes = MAC,
        uuid: bytes = bytes(range(16)),
        ipxe: str = "2.0.0",
        seed: int = 1,
        **build: object,
    ) -> _Station:
        """Power a machine on, and run until it has ended."""
        machine = Machine(mac, uuid, random.Random(seed), ipxe=ipxe)
        station = _Station(machine, persona(machine, **build))
        self._stations.append(station)
        self._at(self.now, lambda: self._step(station, None, first=True))
        while self._queue and station.outcome is None:
            self.now, _, action = heapq.heappop(self._queue)
            assert self.now < PATIENCE, f"no end after {PATIENCE // S} s: {station.screen[-10:]}"
            action()
        return station

    def sent(self, mac: bytes = MAC, port: int = 67) -> list[Seen]:
        """What a machine sent to a port of servers."""
        return [seen for seen in self.wire if seen.who == mac.hex(":") and seen.to[1] == port]

    # --- helpers ------------------------------------------------------------------------------------------------

    def _at(self, when: Ns, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._count), action))

    def _step(self, station: _Station, answer: steps.Answer, first: bool = False) -> None:
        station.machine.now = self.now
        try:
            request = next(station.persona) if first else station.persona.send(answer)
            while True:
                match request:
                    case steps.Show(text):
                        station.screen.append(text)
                    case steps.Configure():
                        pass
                    case steps.SendUdp():
                        self._transmit(station, request)
                    case steps.Await():
                        self._wait(station, request)
                        return
                    case steps.TftpGet() | steps.HttpGet():
                        got = self._fetch(station, request)
                        self._at(self.now + 10 * LATENCY, lambda got=got: self._step(station, got))
                        return
                request = station.persona.send(None)
        except StopIteration as end:
            station.outcome = end.value

    def _wait(self, station: _Station, wanted: steps.Await) -> None:
        station.waiting = wanted

        def over() -> None:
            if station.waiting is wanted:
                station.waiting = None
                self._step(station, None)

        self._at(max(wanted.until, self.now), over)
        self._wake(station)

    def _wake(self, station: _Station) -> None:
        while station.waiting is not None and station.inbox:
            datagram = station.inbox.pop(0)
            if datagram.to_port in station.waiting.ports:
                station.waiting = None
                self._step(station, datagram)

    def _transmit(self, station: _Station, send: steps.SendUdp) -> None:
        source = (send.source, send.port)
        seen = Seen(self.now, station.machine.mac_text, source, (send.to, send.to_port), send.data)
        self.wire.append(seen)
        station.story.append(firmware_story.dhcp_line(seen.message, send.port, send.to_port))
        for server in self._servers:
            for reply in server(seen):
                self._at(self.now + getattr(server, "delay", LATENCY), lambda reply=reply: self._deliver(reply))

    def _deliver(self, reply: Reply) -> None:
        source, to, data = reply
        seen = Seen(self.now, "", source, to, data)
        self.wire.append(seen)
        for server in self._servers:
            if isinstance(server, Bootwire):
                server.overhear(seen)
        for station in self._stations:
            if station.outcome is None and (
                to[0] in ("255.255.255.255", station.machine.address) or self._meant(station, data)
            ):
                station.inbox.append(steps.Datagram(data, source[0], source[1], to[1]))
                self._wake(station)

    def _meant(self, station: _Station, data: bytes) -> bool:
        return data[28:34] == station.machine.mac and not struct.unpack_from("!H", data, 10)[0] & dhcp4.BROADCAST

    def _fetch(self, station: _Station, wanted: steps.TftpGet | steps.HttpGet) -> steps.Answer:
        peer = station.machine.address
        if isinstance(wanted, steps.HttpGet):
            station.fetched.append(f"{wanted.method} {wanted.url}")
            target = urllib.parse.urlsplit(wanted.url).path
            station.story.append(firmware_story.http_line(wanted.method, target, wanted.headers))
            body = self.http(wanted.url, peer)
            if isinstance(body, int):
                return steps.Fetched(0, status=body)
            media = (("content-type", "application/efi"), ("content-length", str(len(body))))
            return _fetched(body if wanted.method == "GET" else b"", len(body), media)
        station.fetched.append(
            f"TFTP {wanted.name.decode('latin-1')}" + (" (size)" if wanted.probe is not None else "")
        )
        found = self.tftp(wanted.name, peer)
        station.story.append(firmware_story.tftp_line(wanted.name, wanted.options))
        if found is None:
            return steps.NotFetched("error", 1, "File not found")
        if wanted.probe is not None:
            station.story.append(f"ERROR {wanted.probe}")
        if len(found) > wanted.limit:
            return steps.NotFetched("too big")
        return steps.Fetched(len(found)) if wanted.probe is not None else _fetched(found, len(found))


def _fetched(body: bytes, size: int, headers: tuple[tuple[str, str], ...] = ()) -> steps.Fetched:
    return steps.Fetched(size, hashlib.sha256(body).hexdigest(), body[: steps.KEEP], headers=headers)


class DhcpServer:
    """The network's own: addresses and nothing else, unless told to add options or to wait."""

    def __init__(
        self, *extra: tuple[int, bytes], siaddr: str = "0.0.0.0", file: bytes = b"", nak: bool = False
    ) -> None:
        self.extra, self.siaddr, self.file, self.nak = extra, siaddr, file, nak
        self.leases: dict[bytes, str] = {}

    def __call__(self, seen: Seen) -> Iterable[Reply]:
        if seen.to[1] != 67:
            return
        asked = seen.message
        if asked.type not in (dhcp4.DISCOVER, dhcp4.REQUEST_LEASE):
            return
        if asked.type == dhcp4.REQUEST_LEASE and dhcp4.address(asked.option(54)) not in ("", ROUTER):
            return
        kind = dhcp4.OFFER if asked.type == dhcp4.DISCOVER else dhcp4.NAK if self.nak else dhcp4.ACK
        address = self.leases.setdefault(asked.chaddr, f"192.0.2.{100 + len(self.leases)}")
        own = {53: bytes((kind,)), 54: dhcp4.packed(ROUTER), 51: (3600).to_bytes(4, "big"), 1: b"\xff\xff\xff\0",
               3: dhcp4.packed(ROUTER), **dict(self.extra)}  # fmt: skip
        yiaddr = "0.0.0.0" if kind == dhcp4.NAK else address
        options = tuple((code, value) for code, value in own.items() if value)
        reply = replace(asked, op=2, yiaddr=yiaddr, siaddr=self.siaddr, file=self.file, options=options)
        to = "255.255.255.255" if asked.flags & dhcp4.BROADCAST else yiaddr
        yield (ROUTER, 67), (to, 68), dhcp4.emit(reply)


class Bootwire:
    """Our server: its core as it is, and what its transfer services would answer."""

    def __init__(
        self,
        kernel: bytes | None = None,
        initrds: tuple[bytes, ...] = (b"initrd",),
        cmdline: str = "quiet",
        **more: object,
    ) -> None:
        names = frozenset(name for names in LOADERS.values() for name in names)
        self.core = BootServer(Settings(**{"offerings": Offerings(loaders=names), **more}))
        self.facts: list[Fact] = []
        self.kernel = kernel or bzimage()
        self.initrds, self.cmdline = initrds, cmdline
        self.loaders = {name: pe() if name.startswith("x86_64") else b"\xea" * 100_000 for name in names}
        self.served: list[str] = []
        self.deaf = False  # to port 4011

    def lan(self, *others: Server) -> Lan:
        lan = Lan(*others, self)
        lan.tftp = lambda name, peer: self._tftp(name.decode(), peer, lan)
        lan.http = lambda url, peer: self._http(url, peer, lan)
        return lan

    def __call__(self, seen: Seen) -> Iterable[Reply]:
        if seen.to[0] not in ("255.255.255.255", OURS) or seen.to[1] not in (67, 4011):
            return
        if seen.to[1] == 4011 and self.deaf:
            return
        service = "pxe" if seen.to[1] == 4011 else "dhcp"
        for effect in self.core.receive(Datagram(seen.data, seen.source, service, "lan0", OURS), seen.at):
            if isinstance(effect, Send):
                yield (effect.ours, effect.from_port), effect.to, effect.data
            else:
                self.facts.append(effect)

    def overhear(self, seen: Seen) -> None:
        if seen.to[1] == 68:
            self.facts += self.core.observe(Datagram(seen.data, seen.source, "dhcp", "lan0", OURS), seen.at)

    def _tftp(self, name: str, peer: str, lan: Lan) -> bytes | None:
        machine, rest = split_machine(name)
        if rest.endswith("autoexec.ipxe"):
            return scripts.autoexec(f"http://{OURS}", machine or self.core.machine_at(peer))
        if rest in self.loaders:
            self.served.append(rest)
            self.core.note_loader_served(machine, rest, lan.now)
        return self.loaders.get(rest)

    def _http(self, url: str, peer: str, lan: Lan) -> bytes | int:
        parts = urllib.parse.urlsplit(url)
        if parts.path == "/boot.ipxe":
            query = dict(urllib.parse.parse_qsl(parts.query))
            machine = query["mac"].replace("-", ":")
            self.core.note_loader_started(machine, lan.now)
            base = f"http://{OURS}"
            return scripts.boot_script(
                scripts.Boot(
                    scripts.boot_url(base, machine, "kernel"),
                    scripts.boot_url(base, machine, scripts.MARKER),
                    tuple(scripts.boot_url(base, machine, f"initrd/{i}") for i in range(len(self.initrds))),
                    self.cmdline,
                ),
                query.get("platform", ""),
            )
        machine, rest = split_machine(parts.path.removeprefix("/boot/"))
        if rest in self.loaders:
            self.served.append(rest)
            return self.loaders[rest]
        if rest.endswith("autoexec.ipxe"):
            return scripts.autoexec(f"http://{OURS}", machine)
        if rest == "started":
            return b"#\n"
        if rest == "kernel":
            return self.kernel
        if rest.startswith("initrd/") and int(rest[7:]) < len(self.initrds):
            return self.initrds[int(rest[7:])]
        return 404


def seconds(moments: Iterable[Seen]) -> list[float]:
    """When these were sent, in seconds after the first, to the hundredth."""
    seen = list(moments)
    return [round((one.at - seen[0].at) / S, 2) for one in seen]
