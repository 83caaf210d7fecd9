"""DHCPv6 messages (RFC 8415 sections 8, 9 and 21), and the options of network boot (RFC 5970).

Options stay octets, in order, repeated ones included, until somebody asks; what they hold is read by the functions
below the messages. A relayed message is an option like any other: whoever unwraps it counts how deep it goes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.wire.reader import WireError

CLIENT_PORT, SERVER_PORT = 546, 547  # RFC 8415 section 7.2
SERVERS = bytes.fromhex("ff020000000000000000000000010002")  # All_DHCP_Relay_Agents_and_Servers, section 7.1

# Message types (RFC 8415 section 7.3)
SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE, RECONFIGURE = range(1, 11)
INFORMATION_REQUEST, RELAY_FORWARD, RELAY_REPLY = 11, 12, 13

# Option codes (IANA "Dynamic Host Configuration Protocol for IPv6")
CLIENT_ID, SERVER_ID, IA_NA, IA_ADDRESS, REQUEST_LIST, PREFERENCE, ELAPSED, RELAYED = 1, 2, 3, 5, 6, 7, 8, 9
STATUS, RAPID_COMMIT, USER_CLASS, VENDOR_CLASS, VENDOR_OPTIONS, INTERFACE_ID = 13, 14, 15, 16, 17, 18
DNS, DOMAINS, BOOT_URL, BOOT_PARAMETERS, ARCHITECTURE, NIC_INTERFACE = 23, 24, 59, 60, 61, 62

# Status codes (section 21.13)
SUCCESS, UNSPECIFIED, NO_ADDRESSES, NO_BINDING, NOT_ON_LINK, USE_MULTICAST = range(6)

FOREVER = 0xFFFFFFFF  # seconds (section 7.7)
MAX_OPTIONS = 512  # of one message or option
RELAYS_MAX = 32  # HOP_COUNT_LIMIT is 8 (section 7.6); more than 32 are nobody's network

Options = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """kind: SOLICIT … or an unknown number; xid: 0..2**24-1; options: (code, value) in order."""

    kind: int
    xid: int
    options: Options

    def option(self, code: int) -> bytes | None:
        """The first of this code, None if there is none."""
        return next((value for have, value in self.options if have == code), None)

    def every(self, code: int) -> list[bytes]:
        return [value for have, value in self.options if have == code]


@dataclass(frozen=True, slots=True)
class Relay:
    """RELAY-FORW or RELAY-REPL. link, peer: 16 octets; the message inside is option RELAYED."""

    kind: int
    hops: int
    link: bytes
    peer: bytes
    options: Options


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an IA_NA. address: 16 octets; lifetimes: seconds. status: (code, text), None if not said."""

    address: bytes
    preferred: int
    valid: int
    status: tuple[int, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Association:
    """An IA_NA (section 21.4). iaid: 0..2**32-1; t1, t2: seconds, 0 leaves it to the client."""

    iaid: int
    t1: int
    t2: int
    addresses: tuple[Address, ...] = ()
    status: tuple[int, bytes] | None = None


def parse(data: bytes) -> Message | Relay:
    """Read one UDP payload. Raises WireError and nothing else."""
    if len(data) < 4:
        raise WireError("truncated DHCPv6 message", 0)
    kind = data[0]
    if kind in (RELAY_FORWARD, RELAY_REPLY):
        if len(data) < 34:
            raise WireError("truncated DHCPv6 relay message", 0)
        return Relay(kind, data[1], data[2:18], data[18:34], parse_options(data, 34))
    return Message(kind, int.from_bytes(data[1:4], "big"), parse_options(data, 4))


def emit(message: Message | Relay) -> bytes:
    """The octets. Raises ValueError for an option that does not fit."""
    if isinstance(message, Relay):
        head = bytes((message.kind, message.hops)) + message.link + message.peer
    else:
        head = bytes((message.kind,)) + message.xid.to_bytes(3, "big")
    return head + emit_options(message.options)


def parse_options(data: bytes, at: int = 0) -> Options:
    """The options in data[at:]. An option never sees past the one that holds it: values are cut out."""
    found: list[tuple[int, bytes]] = []
    while at < len(data):
        if len(data) - at < 4:
            raise WireError("truncated DHCPv6 option", at)
        code, size = struct.unpack_from("!HH", data, at)
        if size > len(data) - at - 4:
            raise WireError(f"DHCPv6 option {code} of length {size}", at + 2)
        if len(found) == MAX_OPTIONS:
            raise WireError(f"more than {MAX_OPTIONS} DHCPv6 options", at)
        found.append((code, data[at + 4 : at + 4 + size]))
        at += 4 + size
    return tuple(found)


def emit_options(options: Options) -> bytes:
    """The octets of options in order."""
    if any(len(value) > 0xFFFF for _, value in options):
        raise ValueError("DHCPv6 option of more than 65,535 octets")
    return b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options)


# --- what options hold ------------------------------------------------------------------------------------------


def parse_association(value: bytes) -> Association:
    """The value of IA_NA. Raises WireError."""
    if len(value) < 12:
        raise WireError("truncated IA_NA", 0)
    iaid, t1, t2 = struct.unpack_from("!III", value)
    addresses: list[Address] = []
    options = parse_options(value, 12)
    for code, inner in options:
        if code == IA_ADDRESS:
            if len(inner) < 24:
                raise WireError("truncated IA address", 0)
            preferred, valid = struct.unpack_from("!II", inner, 16)
            addresses.append(Address(inner[:16], preferred, valid, _first_status(parse_options(inner, 24))))
    return Association(iaid, t1, t2, tuple(addresses), _first_status(options))


def emit_association(association: Association) -> bytes:
    """The value of IA_NA."""
    out = struct.pack("!III", association.iaid, association.t1, association.t2)
    for a in association.addresses:
        inner = a.address + struct.pack("!II", a.preferred, a.valid) + _emit_status(a.status)
        out += emit_options(((IA_ADDRESS, inner),))
    return out + _emit_status(association.status)


def parse_status(value: bytes) -> tuple[int, bytes]:
    """(code, text as sent). Raises WireError."""
    if len(value) < 2:
        raise WireError("truncated status code", 0)
    return int.from_bytes(value[:2], "big"), value[2:]


def addresses(value: bytes) -> tuple[bytes, ...]:
    """Sixteen octets each; what is left over is dropped."""
    return tuple(value[i : i + 16] for i in range(0, len(value) - 15, 16))


def domains(value: bytes) -> tuple[bytes, ...]:
    """Names of option 24 with dots between their labels (RFC 3646 section 4: not compressed). Raises WireError."""
    found: list[bytes] = []
    labels: list[bytes] = []
    at = 0
    while at < len(value):
        size = value[at]
        if size > 63 or at + 1 + size > len(value):
            raise WireError(f"domain label of {size} octets", at)
        if size:
            labels.append(value[at + 1 : at + 1 + size])
        elif labels:
            found.append(b".".join(labels))
            labels = []
        at += 1 + size
    if labels:
        raise WireError("unterminated domain name", at)
    return tuple(found)


def parameters(value: bytes) -> tuple[bytes, ...]:
    """Boot file parameters, option 60 (RFC 5970 section 3.2). Raises WireError."""
    found: list[bytes] = []
    at = 0
    while at < len(value):
        size = int.from_bytes(value[at : at + 2], "big")
        if at + 2 + size > len(value):
            raise WireError(f"boot file parameter of {size} octets", at)
        found.append(value[at + 2 : at + 2 + size])
        at += 2 + size
    return tuple(found)


def duid_from_mac(mac: bytes) -> bytes:
    """DUID-LL of an Ethernet address (section 11.4)."""
    return b"\0\3\0\1" + mac


def duid_from_uuid(uuid: bytes) -> bytes:
    """DUID-UUID (RFC 6355): 16 octets; what UEFI uses."""
    return b"\0\4" + uuid


def _first_status(options: Options) -> tuple[int, bytes] | None:
    value = next((value for code, value in options if code == STATUS), None)
    return None if value is None else parse_status(value)


def _emit_status(status: tuple[int, bytes] | None) -> bytes:
    return b"" if status is None else emit_options(((STATUS, status[0].to_bytes(2, "big") + status[1]),))
