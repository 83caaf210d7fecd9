"""DHCPv4 and BOOTP messages: RFC 2131 and 2132 with RFC 3396 (long options), and the options of network boot.

`parse` and `emit` are a hot path: options stay octets until somebody asks. What an option holds is read by the small
functions below the message: `architectures`, `user_classes`, `sub_options`, `parse_pxe` …
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from bootwire.wire.reader import WireError

# op (RFC 951 section 3)
REQUEST, REPLY = 1, 2

# Message types, option 53 (RFC 2132 section 9.6); 0 stands for a BOOTP message without one.
BOOTP, DISCOVER, OFFER, REQUEST_LEASE, DECLINE, ACK, NAK, RELEASE, INFORM = range(9)
# The names go on to what others say to each other: RFC 3203, 4388, 6926, 7724.
TYPE_NAMES = (
    "BOOTP", "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM", "FORCERENEW", "LEASEQUERY",
    "LEASEUNASSIGNED", "LEASEUNKNOWN", "LEASEACTIVE", "BULKLEASEQUERY", "LEASEQUERYDONE", "ACTIVELEASEQUERY",
    "LEASEQUERYSTATUS", "TLS",
)  # fmt: skip

# Option codes (IANA "BOOTP Vendor Extensions and DHCP Options").
PAD, END = 0, 255
SUBNET_MASK, ROUTER, DNS, HOST_NAME, BROADCAST_ADDRESS, VENDOR_SPECIFIC = 1, 3, 6, 12, 28, 43
REQUESTED_ADDRESS, LEASE_TIME, OVERLOAD, MESSAGE_TYPE, SERVER_ID, REQUEST_LIST = 50, 51, 52, 53, 54, 55
MESSAGE = 56
MAX_SIZE, RENEWAL_TIME, REBINDING_TIME, VENDOR_CLASS, CLIENT_ID = 57, 58, 59, 60, 61
TFTP_SERVER, BOOT_FILE, USER_CLASS, RELAY_AGENT = 66, 67, 77, 82
ARCHITECTURE, NIC_INTERFACE, MACHINE_ID, ETHERBOOT = 93, 94, 97, 175
PXELINUX_CONFIG, PXELINUX_PREFIX = 209, 210

BROADCAST = 0x8000  # flags: the client cannot take unicast yet (RFC 2131 figure 2)
SERVER_PORT, CLIENT_PORT, PXE_PORT = 67, 68, 4011  # RFC 2131 section 4.1; PXE 2.1 section 2.2.3

# Sub-options of option 82: RFC 3046 (1, 2), 3527 (5), 5010 (10), 5107 (11), 8357 (19: no data).
CIRCUIT_ID, REMOTE_ID, LINK_SELECTION, RELAY_FLAGS, SERVER_ID_OVERRIDE, RELAY_PORT = 1, 2, 5, 10, 11, 19

# Sub-options of option 43 in PXE 2.1 (its tag list): discovery and menu.
PXE_CONTROL, PXE_MULTICAST, PXE_SERVERS, PXE_MENU, PXE_PROMPT, PXE_ITEM = 6, 7, 8, 9, 10, 71
# Bits of PXE_CONTROL.
NO_BROADCAST, NO_MULTICAST, LISTED_SERVERS_ONLY, USE_BOOT_FILE = 1, 2, 4, 8

# Sub-options of option 175 that say what an iPXE build can do (iPXE src/include/ipxe/features.h), and its version.
FEATURES = {
    0x10: "pxeext", 0x11: "iSCSI", 0x12: "AoE", 0x13: "http", 0x14: "https", 0x15: "tftp", 0x16: "ftp", 0x17: "dns",
    0x18: "bzImage", 0x19: "multiboot", 0x1A: "slam", 0x1B: "srp", 0x20: "nbi", 0x21: "pxe", 0x22: "elf",
    0x23: "comboot", 0x24: "efi", 0x25: "fcoe", 0x26: "vlan", 0x27: "menu", 0x28: "sdi", 0x29: "nfs",
}  # fmt: skip
IPXE_HTTP, IPXE_BZIMAGE, IPXE_EFI, IPXE_VERSION = 0x13, 0x18, 0x24, 0xEB

MAX_OCTETS = 16_384  # of one datagram; dnsmasq's DHCP_PACKET_MAX
MAX_OPTIONS = 512  # instances in one option area: all 254 codes and every split of 16 KiB fit
MAX_VALUE = 4_096  # octets of one option, joined
MIN_OCTETS = 300  # of one BOOTP message (RFC 951 section 3; RFC 1542 section 2.1): some clients drop shorter ones

Options = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A BOOTP or DHCP message.

    op       1 from a client, 2 from a server
    htype    ARP hardware type; 1 is Ethernet
    hlen     octets of `chaddr` that count, 0..16
    xid      0..2**32-1
    secs     0..65535; seconds only on paper: iPXE keeps state bits in it
    ciaddr yiaddr siaddr giaddr   dotted IPv4; "0.0.0.0" is none
    chaddr   all 16 octets
    sname file   the peer's octets without trailing NULs, at most 64 and 128; empty where option 52 lent them to options
    options  (code, value) in order of first appearance; codes 1..254, each once, values joined as in RFC 3396.
             Option 52 never shows: `parse` has followed it
    """

    op: int
    htype: int
    hlen: int
    hops: int
    xid: int
    secs: int
    flags: int
    ciaddr: str
    yiaddr: str
    siaddr: str
    giaddr: str
    chaddr: bytes
    sname: bytes
    file: bytes
    options: Options

    def option(self, code: int) -> bytes | None:
        """The octets of an option, or None if the message has none such."""
        for have, value in self.options:
            if have == code:
                return value
        return None

    @property
    def type(self) -> int:
        """Option 53, 0..255; 0 (BOOTP) if there is none."""
        value = self.option(MESSAGE_TYPE)
        return value[0] if value else BOOTP

    @property
    def mac(self) -> str:
        """Lower-case with colons, or "" where `chaddr` is not an Ethernet address (EDK2 can put a GUID there)."""
        if self.hlen != 6 or self.chaddr[:6] == bytes(6):
            return ""
        return self.chaddr[:6].hex(":")

    @property
    def boot_file(self) -> bytes:
        """Option 67, else the header's file, up to its first NUL."""
        return (self.option(BOOT_FILE) or self.file).split(b"\0", 1)[0]

    @property
    def max_octets(self) -> int:
        """The largest UDP payload this client takes: option 57 counts the IP datagram, so 28 octets less.

        A client without option 57 takes 576 octets of IP (RFC 2131 section 2); a smaller value is not believed.
        """
        value = self.option(MAX_SIZE)
        size = int.from_bytes(value, "big") if value is not None and len(value) == 2 else 576
        return max(size, 576) - 28


def parse(data: bytes) -> Message:
    """Read one UDP payload, hostile or not.

    Raises  WireError and nothing else. A missing END is forgiven, an option that runs past its area is not.
    Source  RFC 2131 section 2 and 4.1; RFC 2132 section 9.3 (overload); RFC 3396 section 5 (joining, in the order
            options, file, sname)
    """
    size = len(data)
    if size > MAX_OCTETS:
        raise WireError(f"message of more than {MAX_OCTETS} octets", MAX_OCTETS)
    if size < _HEADER.size:
        raise WireError("truncated header", size)
    (
        op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if op != REQUEST and op != REPLY:
        raise WireError(f"op {op}", 0)
    if hlen > 16:
        raise WireError(f"hlen {hlen}", 2)
    if cookie != _COOKIE:
        raise WireError("no DHCP magic cookie", 236)
    found: dict[int, bytes] = {}
    _collect(data, _HEADER.size, size, found)
    lent = found.get(OVERLOAD)
    if lent in _LENT:
        assert lent is not None
        if lent[0] & 1:
            _collect(data, _FILE_AT, 236, found)
            file = b""
        if lent[0] & 2:
            _collect(data, _SNAME_AT, _FILE_AT, found)
            sname = b""
        del found[OVERLOAD]  # whatever the lent areas said about it: overload is followed once
    kind = found.get(MESSAGE_TYPE)
    if kind is not None and len(kind) != 1:
        raise WireError(f"option 53 of length {len(kind)}", _HEADER.size)
    return Message(
        op, htype, hlen, hops, xid, secs, flags,
        _dotted(ciaddr), _dotted(yiaddr), _dotted(siaddr), _dotted(giaddr),
        chaddr, sname.rstrip(b"\0"), file.rstrip(b"\0"), tuple(found.items()),
    )  # fmt: skip


def emit(message: Message) -> bytes:
    """Write one UDP payload of at least 300 octets, END included; values over 255 octets are split (RFC 3396).

    `parse(emit(m)) == m`. Raises ValueError for a message that `parse` would not have made.
    """
    m = message
    if len(m.sname) > 64 or len(m.file) > 128 or len(m.chaddr) != 16:
        raise ValueError("sname of at most 64, file of at most 128, chaddr of exactly 16 octets")
    parts = [
        _HEADER.pack(
            m.op, m.htype, m.hlen, m.hops, m.xid, m.secs, m.flags,
            packed(m.ciaddr), packed(m.yiaddr), packed(m.siaddr), packed(m.giaddr),
            m.chaddr, m.sname, m.file, _COOKIE,
        )
    ]  # fmt: skip
    for code, value in m.options:
        size = len(value)
        if not 0 < code < 255 or size > MAX_VALUE or (code == OVERLOAD and value in _LENT):
            raise ValueError(f"option {code} of {size} octets cannot be sent")
        if size <= 255:
            parts.append(bytes((code, size)) + value)
        else:
            for at in range(0, size, 255):
                piece = value[at : at + 255]
                parts.append(bytes((code, len(piece))) + piece)
    parts.append(b"\xff")
    data = b"".join(parts)
    if len(data) > MAX_OCTETS:
        raise ValueError(f"message of more than {MAX_OCTETS} octets")
    return data.ljust(MIN_OCTETS, b"\0")


def arrange(options: Iterable[tuple[int, bytes]]) -> Options:
    """Options in the order that every client seen can read: 53 first, 54 second, 66 and 67 near the end, 82 last.

    Old PXE ROMs stop reading early; EDK2 writes a NUL just behind option 67 (PxeBcDhcp4.c); RFC 3046 section 2.2
    wants option 82 last. Empty values are left out: a zero length makes EDK2 drop the whole message (Dhcp4Option.c).
    """
    return tuple(sorted((pair for pair in options if pair[1]), key=_rank))


def packed(address: str) -> bytes:
    """Dotted IPv4 to 4 octets."""
    if address == "0.0.0.0":
        return b"\0\0\0\0"
    a, b, c, d = address.split(".")
    return bytes((int(a), int(b), int(c), int(d)))


# --- what options hold ------------------------------------------------------------------------------------------


def address(value: bytes | None) -> str:
    """An option of one IPv4 address (50, 54 …), or "" if it is not exactly that."""
    return _dotted(value) if value is not None and len(value) == 4 else ""


def architectures(value: bytes) -> tuple[int, ...]:
    """Option 93 (RFC 4578 section 2.1): a list of 16-bit numbers; an odd last octet is dropped."""
    return struct.unpack_from(f"!{len(value) // 2}H", value)


def user_classes(value: bytes) -> tuple[bytes, ...]:
    """Option 77 as RFC 3004 has it (length, octets, …), or, where it does not add up, as one raw string.

    iPXE sends the raw string "iPXE" (src/net/udp/dhcp.c, dhcp_request_options_data).
    """
    classes = []
    at, size = 0, len(value)
    while at < size:
        start, at = at + 1, at + 1 + value[at]
        if at == start or at > size:
            return (value,)
        classes.append(value[start:at])
    return tuple(classes)


def machine_uuid(value: bytes | None) -> str:
    """Option 97 of type 0 (RFC 4578 section 2.3) in the form SMBIOS tools print it, or "" where it holds no UUID.

    The first three fields are little-endian, as UEFI and iPXE send them; all zeros or all ones mean none.
    """
    if value is None or len(value) != 17 or value[0] or value[1:] in (bytes(16), b"\xff" * 16):
        return ""
    a, b, c, d, e = struct.unpack("<xIHH2s6s", value)
    return f"{a:08x}-{b:04x}-{c:04x}-{d.hex()}-{e.hex()}"


def sub_options(value: bytes, *, padded: bool = True) -> Options:
    """The (code, value) pairs inside options 43 and 175 (`padded`: PAD and END mean what they mean outside) and 82.

    In order, repeats kept, at most 512. Raises WireError where a length runs past the end.
    """
    found: list[tuple[int, bytes]] = []
    at, size = 0, len(value)
    while at < size:
        code = value[at]
        if padded and code == PAD:
            at += 1
            continue
        if padded and code == END:
            break
        if at + 1 == size or at + 2 + value[at + 1] > size:
            raise WireError(f"truncated sub-option {code}", at)
        if len(found) == MAX_OPTIONS:
            raise WireError(f"more than {MAX_OPTIONS} sub-options", at)
        start, at = at + 2, at + 2 + value[at + 1]
        found.append((code, value[start:at]))
    return tuple(found)


def emit_sub_options(options: Iterable[tuple[int, bytes]], *, padded: bool = True) -> bytes:
    """The octets of an option from its sub-options; where `padded`, closed with END. Raises ValueError over 255."""
    body = b"".join(bytes((code, len(value))) + value for code, value in options)
    return body + b"\xff" if padded else body


def ipxe_features(value: bytes) -> frozenset[int]:
    """The codes of FEATURES that option 175 switches on; none where it cannot be read.

    iPXE sends each as one octet, 1; 0 would mean compiled out.
    """
    try:
        found = sub_options(value)
    except WireError:
        return frozenset()
    return frozenset(code for code, octets in found if code in FEATURES and any(octets))


@dataclass(frozen=True, slots=True)
class Pxe:
    """Option 43 as PXE 2.1 uses it.

    control    discovery control bits (NO_BROADCAST …), None if absent
    multicast  dotted IPv4, "" if absent
    servers    (boot server type, dotted addresses); no addresses: take any server of that type
    menu       (boot server type, text); the first is the default, type 0 boots locally
    prompt     (seconds, text); 0 takes the default at once, 255 waits for ever
    item       (boot server type, layer): what a client asks for and a boot server answers
    others     everything else, in order
    """

    control: int | None = None
    multicast: str = ""
    servers: tuple[tuple[int, tuple[str, ...]], ...] = ()
    menu: tuple[tuple[int, bytes], ...] = ()
    prompt: tuple[int, bytes] | None = None
    item: tuple[int, int] | None = None
    others: Options = ()


def parse_pxe(value: bytes) -> Pxe:
    """Read option 43 of a PXE message; raises WireError where it is not one. Of repeated tags the last counts."""
    control: int | None = None
    multicast = ""
    servers: tuple[tuple[int, tuple[str, ...]], ...] = ()
    menu: tuple[tuple[int, bytes], ...] = ()
    prompt: tuple[int, bytes] | None = None
    item: tuple[int, int] | None = None
    others = []
    for code, octets in sub_options(value):
        if code == PXE_CONTROL and len(octets) == 1:
            control = octets[0]
        elif code == PXE_MULTICAST and len(octets) == 4:
            multicast = _dotted(octets)
        elif code == PXE_SERVERS and octets:
            servers = _servers(octets)
        elif code == PXE_MENU and octets:
            menu = _menu(octets)
        elif code == PXE_PROMPT and octets:
            prompt = (octets[0], octets[1:])
        elif code == PXE_ITEM and len(octets) == 4:
            item = (int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:], "big"))
        else:
            others.append((code, octets))
    return Pxe(control, multicast, servers, menu, prompt, item, tuple(others))


def emit_pxe(pxe: Pxe) -> bytes:
    """Option 43 with END. Raises ValueError where a list is too long for its 255 octets."""
    parts: list[tuple[int, bytes]] = []
    if pxe.control is not None:
        parts.append((PXE_CONTROL, bytes((pxe.control,))))
    if pxe.multicast:
        parts.append((PXE_MULTICAST, packed(pxe.multicast)))
    if pxe.servers:
        listed = (struct.pack("!HB", kind, len(to)) + b"".join(map(packed, to)) for kind, to in pxe.servers)
        parts.append((PXE_SERVERS, b"".join(listed)))
    if pxe.menu:
        parts.append((PXE_MENU, b"".join(struct.pack("!HB", kind, len(text)) + text for kind, text in pxe.menu)))
    if pxe.prompt is not None:
        parts.append((PXE_PROMPT, bytes((pxe.prompt[0],)) + pxe.prompt[1]))
    if pxe.item is not None:
        parts.append((PXE_ITEM, struct.pack("!HH", *pxe.item)))
    return emit_sub_options((*parts, *pxe.others))


# --- helpers ----------------------------------------------------------------------------------------------------

_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")  # RFC 2131 figure 1, and the cookie of RFC 1497
_COOKIE = b"\x63\x82\x53\x63"
_SNAME_AT, _FILE_AT = 44, 108
_LENT = (b"\1", b"\2", b"\3")  # option 52: file, sname, both

_FIRST = (
    MESSAGE_TYPE,
    SERVER_ID,
    LEASE_TIME,
    RENEWAL_TIME,
    REBINDING_TIME,
    SUBNET_MASK,
    BROADCAST_ADDRESS,
    ROUTER,
    DNS,
)
_LAST = (VENDOR_CLASS, MACHINE_ID, VENDOR_SPECIFIC, ETHERBOOT, TFTP_SERVER, BOOT_FILE, RELAY_AGENT)
_RANK = {code: rank - 100 for rank, code in enumerate(_FIRST)} | {code: 1 + rank for rank, code in enumerate(_LAST)}


def _rank(option: tuple[int, bytes]) -> int:
    return _RANK.get(option[0], 0)


def _dotted(raw: bytes) -> str:
    return "0.0.0.0" if raw == b"\0\0\0\0" else f"{raw[0]}.{raw[1]}.{raw[2]}.{raw[3]}"


def _collect(data: bytes, at: int, end: int, found: dict[int, bytes]) -> None:
    """Add the options of one area to `found`, joining repeats."""
    left = MAX_OPTIONS
    while at < end:
        code = data[at]
        if code == 0:
            at += 1
            continue
        if code == 255:
            return
        start = at + 2
        stop = start + data[at + 1] if start <= end else end + 1
        if stop > end:
            raise WireError(f"truncated option {code}", at)
        if not left:
            raise WireError(f"more than {MAX_OPTIONS} options", at)
        left -= 1
        if code in found:
            if len(found[code]) + stop - start > MAX_VALUE:
                raise WireError(f"option {code} of more than {MAX_VALUE} octets", at)
            found[code] += data[start:stop]
        else:
            found[code] = data[start:stop]
        at = stop


def _servers(octets: bytes) -> tuple[tuple[int, tuple[str, ...]], ...]:
    found = []
    at, size = 0, len(octets)
    while at < size:
        if at + 3 > size or at + 3 + 4 * octets[at + 2] > size:
            raise WireError("truncated boot server list", at)
        kind, count = int.from_bytes(octets[at : at + 2], "big"), octets[at + 2]
        at += 3
        found.append((kind, tuple(_dotted(octets[i : i + 4]) for i in range(at, at + 4 * count, 4))))
        at += 4 * count
    return tuple(found)


def _menu(octets: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    at, size = 0, len(octets)
    while at < size:
        if at + 3 > size or at + 3 + octets[at + 2] > size:
            raise WireError("truncated boot menu", at)
        start, stop = at + 3, at + 3 + octets[at + 2]
        found.append((int.from_bytes(octets[at : at + 2], "big"), octets[start:stop]))
        at = stop
    return tuple(found)
