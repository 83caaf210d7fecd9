"""Each machine's last frames, for the page and for whoever is asked for help: a boot's exchange without its bulk.

The kernel filters (`bpf.conversation`): what is said, not what is sent by the megabyte. One thread keeps the rest, a
ring a machine, all of it bounded.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from bootwire.serve import bpf
from bootwire.serve.capture import framed, moment
from bootwire.serve.capture_socket import frame_sockets
from bootwire.serve.interfaces import Interface
from bootwire.wire import ethernet, ip, pcap
from bootwire.wire.reader import WireError

FRAMES = 400
"""Frames of one machine: a boot over TFTP and HTTP is 60 to 150 of them."""

OCTETS = 96 << 10
"""Octets of one machine's frames."""

MACHINES = 256
"""Machines, the one not heard for longest forgotten first: 24 MiB in all, at most."""

BUFFER = 4 << 20
"""Octets of the kernel's queue for each interface: what two hundred machines say at once waits there for its turn."""

TURN = 32
PAUSE = 0.01
"""Frames that are looked at, and the seconds until the next ones: some 3,000 a second at most, in pieces of less than a
millisecond. In a flood the kernel drops the rest, and whoever is served does not wait for us."""

_LIMIT = 2_048  # octets of one frame: none that is asked for is longer than an Ethernet's
_BEFORE, _AFTER = 2.0, 120.0  # seconds around a boot that its capture holds, too

_BOOTP_PORTS = (67, 68, 4011)
_CHADDR = 28  # RFC 2131 section 2


class Rings:
    """Captures from construction until `close`. Raises OSError where packet sockets cannot be had.

    machine_at  the MAC at an address, "" if not known: of machines behind a router, frames say only the router's
    """

    def __init__(self, interfaces: Sequence[Interface], http_port: int, machine_at: Callable[[str], str]) -> None:
        self._machine_at = machine_at
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        self._lock = threading.Lock()
        self._own = {each.address for interface in interfaces for each in interface.addresses}
        self._macs = {ethernet.mac_octets(interface.mac) for interface in interfaces if interface.mac}
        self._frame = memoryview(bytearray(_LIMIT))
        self._sockets = frame_sockets(interfaces, bpf.conversation(http_port), BUFFER)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="rings", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Capture no more; what was captured is gone."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._release()

    def pcap(self, machine: str, began: float, ended: float) -> bytes | None:
        """A capture file of a machine's frames between two moments (seconds, Unix time); None where there are none."""
        first, last = int((began - _BEFORE) * 1e9), int((ended + _AFTER) * 1e9)
        with self._lock:
            ring = self._rings.get(machine)
            frames = [(at, frame) for at, frame in ring.frames if first <= at <= last] if ring else []
        if not frames:
            return None
        return pcap.file_header() + b"".join(pcap.record(at, frame, len(frame)) for at, frame in sorted(frames))

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        by_number = {each.fileno(): each for each in self._sockets}
        for number in (self._wake, *by_number):
            poll.register(number, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                if number == self._wake:
                    return
                self._take(by_number[number])
            time.sleep(PAUSE)

    def _take(self, source: socket.socket) -> None:
        for _ in range(TURN):
            try:
                size, ancillary, _, address = source.recvmsg_into([self._frame], 256)
            except OSError:  # nothing more; or the interface went down, and is heard again when it is back
                return
            frame = framed(self._frame[:size], ancillary, address)
            if frame is not None:
                self.keep(moment(ancillary), bytes(frame))

    def keep(self, at: int, frame: bytes) -> None:
        """Put one frame into its machine's ring. at: nanoseconds since the Unix epoch."""
        machine = self._machine(frame)
        if not machine:
            return
        with self._lock:
            ring = self._rings.get(machine)
            if ring is None:
                ring = self._rings[machine] = _Ring()
                if len(self._rings) > MACHINES:
                    self._rings.popitem(last=False)
            else:
                self._rings.move_to_end(machine)
            ring.put(at, frame)

    def _machine(self, frame: bytes) -> str:
        """Whose frame it is: the MAC inside DHCP, who has the address that is not ours, else who sent it."""
        try:
            outer = ethernet.parse(frame)
            mac = outer.destination if outer.source in self._macs else outer.source
            if outer.ethertype == ethernet.ARP:
                return _unicast(mac)
            packet = ip.parse_ipv4(outer.payload)
        except WireError:
            return ""
        data = packet.payload
        if packet.protocol == ip.UDP and len(data) >= 8 + _CHADDR + 6:
            ports = {int.from_bytes(data[0:2], "big"), int.from_bytes(data[2:4], "big")}
            if ports & set(_BOOTP_PORTS):
                return ethernet.mac_text(data[8 + _CHADDR : 8 + _CHADDR + 6])
        source, destination = ip.v4_text(packet.source), ip.v4_text(packet.destination)
        return self._machine_at(destination if source in self._own else source) or _unicast(mac)

    def _release(self) -> None:
        for each in self._sockets:
            each.close()
        os.close(self._wake)


def _unicast(mac: bytes) -> str:
    """A station's own MAC as text, "" for a group's and for links without any."""
    return "" if mac[0] & 1 or not any(mac) else ethernet.mac_text(mac)


class _Ring:
    """The last frames of one machine."""

    def __init__(self) -> None:
        self.frames: deque[tuple[int, bytes]] = deque()
        self._octets = 0

    def put(self, at: int, frame: bytes) -> None:
        self.frames.append((at, frame))
        self._octets += len(frame)
        while len(self.frames) > FRAMES or self._octets > OCTETS:
            self._octets -= len(self.frames.popleft()[1])
