"""Network cards, in the shape of UNDI (PXE 2.1 section 4): open, close, station address, receive filter, transmit,
receive, statistics. A card moves frames and knows nothing of what is in them.

Calls come from one thread at a time; none blocks. `fileno` tells when there is something to receive.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from bootwire.engine.ip import Frame, Offload
from bootwire.engine.ip.frame import complete, network_at
from bootwire.wire import ethernet, pcap, tcp

# linux/if_tun.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_CSUM, _TUN_TSO4, _TUN_TSO6 = 1, 2, 4
# linux/if_packet.h
_SOL_PACKET, _ADD_MEMBERSHIP, _VNET_HDR, _IGNORE_OUTGOING = 263, 1, 15, 23
_AUXDATA, _VLAN_VALID = 8, 1 << 4
_MR_MULTICAST, _MR_PROMISC, _MR_ALLMULTI, _MR_UNICAST = 0, 1, 2, 3
_ETH_P_ALL = 3
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
# linux/sockios.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFMTU, _SIOCSIFMTU, _SIOCGIFHWADDR = 0x8913, 0x8914, 0x8921, 0x8922, 0x8927
_IFF_UP = 1

# linux/virtio_net.h: flags, GSO type, header length, GSO size, where the checksum starts, where it goes from there
_VNET = struct.Struct("=BBHHHH")
_AUXILIARY = struct.Struct("=IIIHHHH")  # linux/if_packet.h, struct tpacket_auxdata
_NEEDS_CSUM, _DATA_VALID = 1, 2
_GSO_NONE, _GSO_TCPV4, _GSO_TCPV6 = 0, 1, 4

_READ_MAX = 65_536 + 64  # octets: one merged packet of 64 KiB with its headers
_RECEIVE_BUFFER = 8 << 20  # octets of a packet socket: some 5,600 full frames, half a second at 100 Mbit/s


@dataclass(slots=True)
class Statistics:
    """What a card has moved. Frames as the card sees them: one of 64 KiB that the link cuts counts once."""

    received: int = 0
    received_octets: int = 0
    sent: int = 0
    sent_octets: int = 0
    lost: int = 0  # frames that could not be sent

    def took(self, frame: Frame) -> bool:
        """The card has taken a frame: True."""
        self.sent += 1
        self.sent_octets += len(frame.octets)
        return True


class Nic(Protocol):
    """A network card.

    mac      the station address, 6 octets
    mtu      octets of IP packet in a frame
    offload  what the card does for what we send
    """

    mac: bytes
    mtu: int
    offload: Offload
    statistics: Statistics

    def open(self) -> None:
        """Begin to receive. OSError where the machine does not let us."""

    def close(self) -> None:
        """Stop; may be called twice."""

    def filter(self, groups: Collection[bytes], everything: bool = False) -> None:
        """Besides our own address and broadcast: these multicast MAC addresses, or every frame there is."""

    def transmit(self, frame: Frame) -> bool:
        """False if the card has no room: the frame is lost."""

    def receive(self) -> Frame | None:
        """A frame that has come, None if there is none."""

    def fileno(self) -> int:
        """A descriptor that polls readable when there is a frame."""


class TapNic:
    """A TAP device: the kernel (or a bridge, or QEMU) is at the other end of the wire.

    The interface `name` is made by `open` and gone after `close`; `carrier` brings its kernel end up. offload: exchange
    packets of up to 64 KiB with checksums left out, as a network card with TSO and LRO would.
    """

    def __init__(self, name: str, mac: bytes, *, mtu: int = 1500, offload: bool = True) -> None:
        self.name, self.mac, self.mtu = name, mac, mtu
        self.offload = Offload(offload, offload)
        self.statistics = Statistics()
        self._fd = -1

    def open(self) -> None:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", self.name.encode(), flags))
            does = _TUN_CSUM | _TUN_TSO4 | _TUN_TSO6 if self.offload.segmentation else 0
            fcntl.ioctl(fd, _TUNSETOFFLOAD, does)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def carrier(self) -> None:
        """Bring the kernel's end of the wire up, with our MTU. It must be in this network namespace still."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            name = self.name.encode()
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name, self.mtu))
            request = bytearray(fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name, 0)))
            flags = struct.unpack_from("H", request, 16)[0] | _IFF_UP
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags))

    def filter(self, groups: Collection[bytes], everything: bool = False) -> None:
        """Nothing to do: a TAP device gives everything."""

    def transmit(self, frame: Frame) -> bool:
        try:
            os.writev(self._fd, (_vnet_header(frame), frame.octets))
        except OSError as error:
            return _lost(self.statistics, error)
        return self.statistics.took(frame)

    def receive(self) -> Frame | None:
        try:
            data = os.read(self._fd, _READ_MAX)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EIO, errno.EBADFD):  # the interface is down, or gone
                return None
            raise
        return _received(data, self.statistics)

    def fileno(self) -> int:
        return self._fd


class PacketNic:
    """A packet socket on an interface that exists, beside the machine's own network stack and with a MAC of our own.

    The two do not hear each other: a frame that this machine sends to our MAC leaves by the wire. Interfaces that
    allow one MAC only (most wireless ones, some clouds' virtual ones) deliver broadcast alone. The kernel takes 802.1Q
    tags off; with `tagged` they are put back, else frames of all VLANs look alike.
    """

    def __init__(self, interface: str, mac: bytes, *, offload: bool = True, tagged: bool = False) -> None:
        self.interface, self.mac, self._tagged = interface, mac, tagged
        self.mtu = 0  # until open
        self.offload = Offload(offload, offload)
        self.statistics = Statistics()
        self._socket: socket.socket | None = None

    def open(self) -> None:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            request = fcntl.ioctl(raw, _SIOCGIFMTU, struct.pack("16si20x", self.interface.encode(), 0))
            self.mtu = struct.unpack_from("i", request, 16)[0]
            raw.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
            raw.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            raw.setsockopt(_SOL_PACKET, _AUXDATA, self._tagged)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            _attach(raw, self.mac)
            raw.bind((self.interface, _ETH_P_ALL))
            self._socket = raw
            self._member(_MR_UNICAST, self.mac)
            self._member(_MR_ALLMULTI, b"")  # neighbour discovery asks by multicast
        except OSError:
            self._socket = None
            raw.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def filter(self, groups: Collection[bytes], everything: bool = False) -> None:
        assert self._socket is not None
        for group in groups:
            self._member(_MR_MULTICAST, group)
        if everything:
            self._member(_MR_PROMISC, b"")
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def transmit(self, frame: Frame) -> bool:
        assert self._socket is not None
        try:
            self._socket.sendmsg((_vnet_header(frame), frame.octets))
        except OSError as error:
            return _lost(self.statistics, error)
        return self.statistics.took(frame)

    def receive(self) -> Frame | None:
        assert self._socket is not None
        tag = b""
        try:
            if self._tagged:
                data, ancillary, _, _ = self._socket.recvmsg(_READ_MAX, socket.CMSG_SPACE(_AUXILIARY.size))
                tag = _vlan_tag(ancillary)
            else:
                data = self._socket.recv(_READ_MAX)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.ENETDOWN, errno.EINVAL):
                return None  # EINVAL: merged in a way that this kernel cannot describe (datagrams, before Linux 6.2)
            raise
        return _received(data, self.statistics, tag)

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def _member(self, kind: int, address: bytes) -> None:
        assert self._socket is not None
        index = socket.if_nametoindex(self.interface)
        request = struct.pack("iHH8s", index, kind, len(address), address)
        try:
            self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)
        except OSError:
            # a card without room for another address: hear everything instead
            promiscuous = struct.pack("iHH8s", index, _MR_PROMISC, 0, b"")
            self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, promiscuous)


class CableNic:
    """One end of a cable inside this process; `cable` makes both ends. Needs no privilege."""

    def __init__(self, end: socket.socket, mac: bytes, mtu: int, offload: Offload) -> None:
        self.mac, self.mtu, self.offload = mac, mtu, offload
        self.statistics = Statistics()
        self._socket = end

    def open(self) -> None:
        """The cable is plugged in from the beginning."""

    def close(self) -> None:
        self._socket.close()

    def filter(self, groups: Collection[bytes], everything: bool = False) -> None:
        """Nothing to do: a cable gives everything."""

    def transmit(self, frame: Frame) -> bool:
        try:
            self._socket.sendmsg((_vnet_header(frame), frame.octets))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.statistics.lost += 1
            return False
        return self.statistics.took(frame)

    def receive(self) -> Frame | None:
        try:
            data = self._socket.recv(_READ_MAX)
        except (BlockingIOError, ConnectionResetError):
            return None
        return _received(data, self.statistics)

    def fileno(self) -> int:
        return self._socket.fileno()


def cable(left: bytes, right: bytes, *, mtu: int = 1500, offload: bool = True) -> tuple[CableNic, CableNic]:
    """Two cards with these MAC addresses and a wire between them."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    does = Offload(offload, offload)
    return CableNic(ends[0], left, mtu, does), CableNic(ends[1], right, mtu, does)


class PcapTee:
    """Another card, with a capture of everything that passes it.

    as_wired: cut, and with checksums, as a real wire would carry it; else as it passes here, merged and without, which
    costs a fiftieth and does not slow the peer into repeating itself.
    """

    def __init__(self, nic: Nic, file: BinaryIO, *, as_wired: bool = True) -> None:
        self._nic, self._file, self._as_wired = nic, file, as_wired
        self.mac, self.offload, self.statistics = nic.mac, nic.offload, nic.statistics
        file.write(pcap.file_header())

    @property
    def mtu(self) -> int:
        return self._nic.mtu

    @mtu.setter
    def mtu(self, value: int) -> None:
        self._nic.mtu = value

    def open(self) -> None:
        self._nic.open()

    def close(self) -> None:
        self._nic.close()
        self._file.flush()

    def filter(self, groups: Collection[bytes], everything: bool = False) -> None:
        self._nic.filter(groups, everything)

    def transmit(self, frame: Frame) -> bool:
        self._note(frame)
        return self._nic.transmit(frame)

    def receive(self) -> Frame | None:
        frame = self._nic.receive()
        if frame is not None:
            self._note(frame)
        return frame

    def fileno(self) -> int:
        return self._nic.fileno()

    def _note(self, frame: Frame) -> None:
        now = time.time_ns()
        for piece in complete(frame) if self._as_wired else (frame,):
            self._file.write(pcap.record(now, piece.octets, len(piece.octets)))


def random_mac() -> bytes:
    """A locally administered unicast address (IEEE 802 clause 8.4)."""
    return bytes((0x02,)) + os.urandom(5)


def interface_mac(name: str) -> bytes:
    """The address of an interface of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return fcntl.ioctl(control, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))[18:24]


def _vnet_header(frame: Frame) -> bytes:
    """What virtio says of `frame`: where the checksum goes, and how long the pieces are."""
    start = frame.checksum_at
    if not start:
        return bytes(_VNET.size)
    octets = frame.octets
    network = network_at(octets)
    version4 = octets[network] >> 4 == 4
    protocol = octets[network + 9] if version4 else octets[network + 6]
    where = tcp.CHECKSUM_AT if protocol == tcp.PROTOCOL else 6
    if not frame.segment:
        return _VNET.pack(_NEEDS_CSUM, _GSO_NONE, 0, 0, start, where)
    size = start + (octets[start + 12] >> 4) * 4
    kind = _GSO_TCPV4 if version4 else _GSO_TCPV6
    return _VNET.pack(_NEEDS_CSUM, kind, size, frame.segment, start, where)


def _vlan_tag(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The 802.1Q tag that the kernel took off a frame, b"" if there was none."""
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _AUXDATA) and len(data) == _AUXILIARY.size:
            status, _, _, _, _, control, ethertype = _AUXILIARY.unpack(data)
            return struct.pack("!HH", ethertype or ethernet.VLAN, control) if status & _VLAN_VALID else b""
    return b""


def _received(data: bytes, statistics: Statistics, tag: bytes = b"") -> Frame | None:
    if len(data) <= _VNET.size:
        return None
    flags, kind, _, size, start, _ = _VNET.unpack_from(data)
    statistics.received += 1
    statistics.received_octets += len(data) - _VNET.size
    # whoever merged segments has checked them
    trusted = bool(flags & _DATA_VALID) or kind & 0x7F != _GSO_NONE
    octets = data[_VNET.size : _VNET.size + 12] + tag + data[_VNET.size + 12 :] if tag else data[_VNET.size :]
    at = start + len(tag) if flags & _NEEDS_CSUM else 0
    return Frame(octets, size if kind & 0x7F else 0, at, trusted)


def _lost(statistics: Statistics, error: OSError) -> bool:
    """A frame that the device did not take. What is wrong for longer than a moment is the caller's to know."""
    statistics.lost += 1
    if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.EIO, errno.ENETDOWN, errno.EINVAL, errno.EMSGSIZE):
        return False
    raise error


def _attach(raw: socket.socket, mac: bytes) -> None:
    """Let the kernel drop what is for other stations: a classic BPF program (linux/filter.h) on the first octets."""
    program = (
        (0x20, 0, 0, 0),  # ld  [0]
        (0x15, 0, 2, int.from_bytes(mac[:4], "big")),  # jeq first four octets, else test the group bit
        (0x28, 0, 0, 4),  # ldh [4]
        (0x15, 2, 0, int.from_bytes(mac[4:], "big")),  # jeq last two -> take
        (0x30, 0, 0, 0),  # ldb [0]
        (0x45, 0, 1, 1),  # jset group bit -> take
        (0x06, 0, 0, 0x40000),  # ret: take
        (0x06, 0, 0, 0),  # ret: drop
    )
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(buffer)))
    with contextlib.suppress(BlockingIOError):  # what came before the filter
        while raw.recv(_READ_MAX):
            pass
