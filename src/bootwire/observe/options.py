"""DHCP messages in words: header fields and options by their names, values as people read them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping

from bootwire.policy.client import ARCHITECTURES
from bootwire.wire import dhcp4, dns
from bootwire.wire.dhcp4 import Message
from bootwire.wire.reader import Reader, WireError
from bootwire.wire.text import printable

NAMES: Mapping[int, str] = {
    1: "subnet mask", 2: "time offset", 3: "routers", 4: "time servers", 5: "IEN 116 name servers", 6: "name servers",
    7: "log servers", 8: "quotes servers", 9: "LPR servers", 10: "Impress servers", 11: "RLP servers", 12: "host name",
    13: "boot file size", 14: "merit dump file", 15: "domain name", 16: "swap server", 17: "root path",
    18: "extensions path", 19: "IP forwarding", 20: "non-local source routing", 21: "policy filter",
    22: "largest datagram", 23: "default TTL", 24: "path MTU ageing", 25: "path MTU plateaus", 26: "interface MTU",
    27: "all subnets local", 28: "broadcast address", 29: "mask discovery", 30: "mask supplier",
    31: "router discovery", 32: "router solicitation address", 33: "static routes", 34: "trailers", 35: "ARP time-out",
    36: "Ethernet encapsulation", 37: "TCP default TTL", 38: "TCP keep-alive interval", 39: "TCP keep-alive garbage",
    40: "NIS domain", 41: "NIS servers", 42: "NTP servers", 43: "vendor options", 44: "NetBIOS name servers",
    45: "NetBIOS datagram servers", 46: "NetBIOS node type", 47: "NetBIOS scope", 48: "X font servers",
    49: "X display managers", 50: "requested address", 51: "lease time", 52: "overload", 53: "message type",
    54: "server identifier", 55: "requested options", 56: "message", 57: "largest message", 58: "renewal time",
    59: "rebinding time", 60: "vendor class", 61: "client identifier", 62: "NetWare/IP domain",
    63: "NetWare/IP options", 64: "NIS+ domain", 65: "NIS+ servers", 66: "TFTP server", 67: "boot file",
    68: "mobile IP home agents", 69: "SMTP servers", 70: "POP3 servers", 71: "NNTP servers", 72: "WWW servers",
    73: "finger servers", 74: "IRC servers", 75: "StreetTalk servers", 76: "StreetTalk directory servers",
    77: "user class", 78: "SLP directory agents", 79: "SLP scope", 80: "rapid commit", 81: "client FQDN",
    82: "relay agent", 83: "iSNS", 85: "NDS servers", 86: "NDS tree", 87: "NDS context", 90: "authentication",
    91: "last transaction", 92: "associated addresses", 93: "client architecture", 94: "network interface",
    97: "machine identifier", 98: "user authentication", 99: "civic location", 100: "time zone", 101: "time zone name",
    108: "IPv6-only preferred", 114: "captive portal", 116: "auto-configuration", 117: "name service search",
    118: "subnet selection", 119: "domain search", 120: "SIP servers", 121: "classless routes",
    122: "CableLabs client configuration", 123: "geographic location", 124: "vendor-identifying class",
    125: "vendor-identifying options", 128: "PXE reserved", 129: "PXE reserved", 130: "PXE reserved",
    131: "PXE reserved", 132: "PXE reserved", 133: "PXE reserved", 134: "PXE reserved", 135: "PXE reserved",
    138: "CAPWAP controllers", 145: "forcerenew nonce", 146: "RDNSS selection", 150: "TFTP server addresses",
    151: "leasequery status", 152: "leasequery base time", 158: "PCP servers", 159: "port parameters",
    160: "captive portal (old)", 161: "MUD URL", 175: "iPXE encapsulated", 177: "iPXE or Etherboot",
    203: "iPXE", 208: "PXELINUX magic", 209: "PXELINUX configuration file", 210: "PXELINUX path prefix",
    211: "PXELINUX reboot time", 212: "6RD", 220: "subnet allocation", 221: "VPN", 249: "classless routes (Microsoft)",
    252: "proxy configuration URL",
}  # fmt: skip
"""By option code: IANA BOOTP/DHCP parameters; 175 is iPXE's (src/include/ipxe/dhcp.h), 249 and 252 Microsoft's."""

PXE_NAMES: Mapping[int, str] = {
    1: "MTFTP address", 2: "MTFTP client port", 3: "MTFTP server port", 4: "MTFTP time-out", 5: "MTFTP delay",
    6: "discovery control", 7: "discovery multicast address", 8: "boot servers", 9: "boot menu", 10: "menu prompt",
    11: "multicast addresses", 12: "credential types", 71: "boot item", 255: "end",
}  # fmt: skip
"""By sub-option of option 43 (PXE 2.1 section 2.2.1, table 2-1)."""

RELAY_NAMES: Mapping[int, str] = {
    1: "circuit id", 2: "remote id", 4: "DOCSIS class", 5: "link selection", 6: "subscriber id", 7: "RADIUS",
    8: "authentication", 9: "vendor options", 10: "flags", 11: "server override", 12: "relay id",
    19: "port", 150: "link selection (Cisco)", 151: "VPN", 152: "server override (Cisco)",
}  # fmt: skip
"""By sub-option of option 82 (IANA "DHCP Relay Agent Sub-Option Codes")."""

_ADDRESSES = frozenset((
    1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 28, 32, 41, 42, 44, 45, 48, 49, 50, 54, 65, 68, 69, 70, 71, 72, 73, 74, 75, 76,
    85, 92, 118, 138, 150,
))  # fmt: skip
_NUMBERS = frozenset((13, 22, 23, 24, 26, 35, 37, 38, 46, 51, 57, 58, 59, 91, 108, 116, 211))
_TEXTS = frozenset((12, 14, 15, 17, 18, 40, 47, 56, 60, 62, 64, 66, 67, 86, 87, 100, 101, 114, 160, 161, 209, 210, 252))
_SWITCHES = frozenset((19, 20, 27, 29, 30, 31, 34, 36, 39))
_RELAY_ADDRESSES = frozenset((5, 11, 150, 152))
_CONTROLS = ((1, "no broadcast"), (2, "no multicast"), (4, "listed servers only"), (8, "boot the file at once"))
_LIMIT = 120  # characters of one value
_MANY = 16  # addresses, routes, names of one option


def described(message: Message) -> list[str]:
    """A line for each header field that is set and for each option, in the order they stand in."""
    lines = [f"{name} {value}" for name, value in _header(message)]
    vendor = message.option(dhcp4.VENDOR_CLASS) or b""
    lines += [f"{code:3} {NAMES.get(code, 'option')}: {value_text(code, one, vendor)}" for code, one in message.options]
    return lines


def value_text(code: int, value: bytes, vendor: bytes = b"PXEClient") -> str:
    """One option's value. Total: what makes no sense is shown as octets.

    vendor  option 60 of the same message, b"" for none: whose option 43 it is
    """
    return _value(code, value, vendor) or _octets(value)


def _value(code: int, value: bytes, vendor: bytes) -> str:
    """The same, "" for what makes no sense."""
    if code == dhcp4.MESSAGE_TYPE and len(value) == 1 and value[0] < len(dhcp4.TYPE_NAMES):
        return dhcp4.TYPE_NAMES[value[0]]
    if code in _ADDRESSES and value and len(value) % 4 == 0:
        return _addresses(value)
    if code in _NUMBERS and 0 < len(value) <= 4:
        return str(int.from_bytes(value, "big"))
    if code == 2 and len(value) == 4:
        return str(int.from_bytes(value, "big", signed=True))
    if code in _SWITCHES and len(value) == 1:
        return "yes" if value[0] else "no"
    if code == dhcp4.REQUEST_LIST:
        return printable(", ".join(str(one) for one in value), _LIMIT * 3)
    if code == dhcp4.VENDOR_SPECIFIC and vendor and not vendor.startswith((b"PXEClient", b"HTTPClient")):
        return _subs(value)
    if code in _TEXTS:
        return printable(value.rstrip(b"\0"), _LIMIT)
    if (reader := _READERS.get(code)) is not None:
        try:
            return reader(value)
        except WireError:
            pass
    return ""


def architecture_text(number: int) -> str:
    """7 (UEFI x64)"""
    known = ARCHITECTURES.get(number)
    return f"{number} ({known[1]})" if known else f"{number} (unknown)"


def _header(message: Message) -> Iterator[tuple[str, str]]:
    if message.xid:
        yield "xid", f"0x{message.xid:08x}"
    if message.hops:
        yield "hops", str(message.hops)
    if message.secs > 0xFF and not message.secs & 0xFF:  # EDK2 on port 4011 (PxeBcDhcp4.c)
        yield "secs", f"{message.secs >> 8} (octets swapped)"
    elif message.secs:
        yield "secs", str(message.secs)
    for name in ("ciaddr", "yiaddr", "siaddr", "giaddr"):
        if (address := getattr(message, name)) != "0.0.0.0":
            yield name, address
    if message.flags & dhcp4.BROADCAST:
        yield "flags", "broadcast"
    for name in ("sname", "file"):
        if value := getattr(message, name).split(b"\0", 1)[0]:
            yield name, printable(value, _LIMIT)


# --- options with a shape of their own: "" or WireError where it is not theirs ------------------------------------


def _architectures(value: bytes) -> str:
    if not value or len(value) % 2:
        return ""
    return ", ".join(architecture_text(number) for number in dhcp4.architectures(value)[:_MANY])


def _interface(value: bytes) -> str:
    """Option 94 (RFC 4578 section 2.2): type 1 is UNDI."""
    return f"UNDI {value[1]}.{value[2]}" if len(value) == 3 and value[0] == 1 else ""


def _client_id(value: bytes) -> str:
    """Option 61 (RFC 2132 section 9.14; RFC 4361: 255, IAID and DUID; PXE 2.1: 0 and the UUID)."""
    if len(value) == 7 and value[0] == 1:
        return f"Ethernet {value[1:].hex(':')}"
    if len(value) == 17 and not value[0]:
        return f"UUID {_machine_id(value)}"
    if len(value) > 7 and value[0] == 255:
        return f"IAID {value[1:5].hex()}, DUID {_octets(value[5:])}"
    if len(value) > 1 and value[0] == 0 and _is_text(value[1:]):
        return printable(value[1:], _LIMIT)
    return ""


def _machine_id(value: bytes) -> str:
    """Option 97 (RFC 4578 section 2.3), also where it is all zeros."""
    return str(uuid.UUID(bytes_le=value[1:])) if len(value) == 17 and not value[0] else ""


def _overload(value: bytes) -> str:
    return {b"\1": "file", b"\2": "sname", b"\3": "file and sname"}.get(value, "")


def _fqdn(value: bytes) -> str:
    """Option 81 (RFC 4702): flags, two codes, and the name as text or, by bit 2 of the flags, in DNS's form."""
    if len(value) < 3:
        return ""
    name = value[3:]
    text = _plain_name(name) if value[0] & 4 else printable(name.rstrip(b"\0"), _LIMIT)
    return f"{text or '(none)'}, flags {value[0]}"


def _plain_name(data: bytes) -> str:
    """A name in DNS's form that may lack its end (RFC 4702 section 2.3.1: partial)."""
    return dns.text_of(dns.parse_name(data if data.endswith(b"\0") else data + b"\0"))


def _domains(value: bytes) -> str:
    return ", ".join(dns.text_of(name) for name in dns.parse_names(value)[:_MANY])


def _static_routes(value: bytes) -> str:
    if not value or len(value) % 8:
        return ""
    pairs = (value[at : at + 8] for at in range(0, min(len(value), 8 * _MANY), 8))
    return ", ".join(f"{_dotted(pair[:4])} via {_dotted(pair[4:])}" for pair in pairs)


def _routes(value: bytes) -> str:
    """Option 121 (RFC 3442): width of the destination, its octets that count, the router."""
    r, told = Reader(value), list[str]()
    while r.left() and len(told) < _MANY:
        width = r.u8("width")
        if width > 32:
            raise WireError(f"width {width}", r.at - 1)
        to = r.take((width + 7) // 8, "destination").ljust(4, b"\0")
        told.append(f"{_dotted(to)}/{width} via {_dotted(r.take(4, 'router'))}")
    return ", ".join(told)


def _enterprise(value: bytes) -> str:
    """Options 124 and 125 (RFC 3925): enterprise number, length, data, and again."""
    r, told = Reader(value), list[str]()
    while r.left() and len(told) < _MANY:
        number = r.u32("enterprise")
        told.append(f"enterprise {number}: {guess(r.take(r.u8('length'), 'data'))}")
    return printable("; ".join(told), 2 * _LIMIT)


def _pxe(value: bytes) -> str:
    told = []
    for code, octets in dhcp4.sub_options(value)[:24]:
        try:
            text = _pxe_value(code, octets)
        except WireError:
            text = ""
        told.append(f"{PXE_NAMES.get(code, code)} {text or guess(octets)}")
    return printable("; ".join(told), 3 * _LIMIT)


def _pxe_value(code: int, octets: bytes) -> str:
    pxe = dhcp4.parse_pxe(bytes((code, len(octets))) + octets)
    if pxe.control is not None:
        says = [word for bit, word in _CONTROLS if pxe.control & bit]
        return f"{pxe.control} ({', '.join(says) or 'any boot server'})"
    if pxe.servers:
        return ", ".join(f"type {kind}{''.join(' ' + one for one in to[:_MANY])}" for kind, to in pxe.servers[:_MANY])
    if pxe.menu:
        return ", ".join(f'type {kind} "{printable(text, 60)}"' for kind, text in pxe.menu[:_MANY])
    if pxe.prompt is not None:
        wait = {0: "at once", 255: "for ever"}.get(pxe.prompt[0], f"{pxe.prompt[0]} s")
        return f'{wait} "{printable(pxe.prompt[1], 60)}"'
    if pxe.item is not None:
        return f"type {pxe.item[0]}, layer {pxe.item[1]}"
    if code in (1, 7) and len(octets) == 4:
        return _dotted(octets)
    if (code in (2, 3) and len(octets) == 2) or (code in (4, 5) and len(octets) == 1):
        return str(int.from_bytes(octets, "big"))
    return ""


def _relay_agent(value: bytes) -> str:
    told = []
    for code, octets in dhcp4.sub_options(value, padded=False)[:24]:
        text = _dotted(octets) if code in _RELAY_ADDRESSES and len(octets) == 4 else guess(octets)
        told.append(f"{RELAY_NAMES.get(code, code)} {text}")
    return printable("; ".join(told), 2 * _LIMIT)


def _ipxe(value: bytes) -> str:
    """Option 175 of iPXE (src/include/ipxe/dhcp.h, features.h): version, card, features, settings."""
    features, told = [], []
    for code, octets in dhcp4.sub_options(value)[:64]:
        if code in dhcp4.FEATURES:
            features += [dhcp4.FEATURES[code]] if any(octets) else []
        elif code == dhcp4.IPXE_VERSION:
            told.append("version " + ".".join(map(str, octets)))
        elif code == 0xB1 and len(octets) == 5:
            kind = {1: "PCI", 2: "ISA PnP", 3: "EISA", 4: "MCA", 5: "ISA"}.get(octets[0], str(octets[0]))
            told.append(f"card {kind} {octets[1:3].hex()}:{octets[3:5].hex()}")
        else:
            name = {1: "priority", 8: "keep-san", 9: "skip-san-boot", 0xB0: "no-pxedhcp"}.get(code, str(code))
            told.append(f"{name} {int.from_bytes(octets, 'big') if len(octets) == 1 else guess(octets)}")
    return printable("; ".join(told + (["features " + " ".join(features)] if features else [])), 3 * _LIMIT)


_READERS: Mapping[int, Callable[[bytes], str]] = {
    33: _static_routes,
    dhcp4.VENDOR_SPECIFIC: _pxe,
    dhcp4.OVERLOAD: _overload,
    dhcp4.CLIENT_ID: _client_id,
    dhcp4.USER_CLASS: lambda value: printable(b" ".join(dhcp4.user_classes(value)), _LIMIT),
    81: _fqdn,
    dhcp4.RELAY_AGENT: _relay_agent,
    dhcp4.ARCHITECTURE: _architectures,
    dhcp4.NIC_INTERFACE: _interface,
    dhcp4.MACHINE_ID: _machine_id,
    119: _domains,
    121: _routes,
    124: _enterprise,
    125: _enterprise,
    dhcp4.ETHERBOOT: _ipxe,
    249: _routes,
}


# --- helpers ----------------------------------------------------------------------------------------------------


def _dotted(octets: bytes) -> str:
    return ".".join(map(str, octets))


def _addresses(value: bytes) -> str:
    return ", ".join(_dotted(value[at : at + 4]) for at in range(0, min(len(value), 4 * _MANY), 4))


def _subs(value: bytes) -> str:
    """Somebody else's option 43: numbers and values, where it is made of sub-options at all."""
    try:
        pairs = dhcp4.sub_options(value)
    except WireError:
        return _octets(value)
    return printable("; ".join(f"{code} {guess(one)}" for code, one in pairs[:24]), 2 * _LIMIT)


def _is_text(value: bytes) -> bool:
    return all(0x20 <= octet < 0x7F for octet in value)


def guess(value: bytes) -> str:
    """Text where it can be one, else octets."""
    text = value.strip(b"\0")
    if len(text) > 2 and _is_text(text):
        return printable(text, 60)
    return _octets(value)


def _octets(value: bytes) -> str:
    return value[:48].hex(" ") + ("…" if len(value) > 48 else "") if value else "(empty)"
