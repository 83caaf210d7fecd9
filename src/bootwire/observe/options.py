"""DHCP messages in words: header fields and options by their names, values as people read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bootwire.policy.client import ARCHITECTURES
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

NAMES: Mapping[int, str] = {
    1: "subnet mask", 3: "routers", 6: "name servers", 12: "host name", 13: "boot file size", 15: "domain name",
    17: "root path", 28: "broadcast address", 43: "vendor options", 50: "requested address", 51: "lease time",
    52: "overload", 53: "message type", 54: "server identifier", 55: "requested options", 56: "message",
    57: "largest message", 58: "renewal time", 59: "rebinding time", 60: "vendor class", 61: "client identifier",
    66: "TFTP server", 67: "boot file", 77: "user class", 82: "relay agent", 93: "client architecture",
    94: "network interface", 97: "machine identifier", 119: "domain search", 121: "classless routes",
    128: "PXE reserved", 129: "PXE reserved", 150: "TFTP server addresses", 175: "iPXE encapsulated", 203: "iPXE",
    208: "PXELINUX magic", 209: "PXELINUX configuration file", 210: "PXELINUX path prefix", 211: "PXELINUX reboot time",
}  # fmt: skip
"""By option code: IANA BOOTP/DHCP parameters; 175 is iPXE's (src/include/ipxe/dhcp.h)."""

PXE_NAMES: Mapping[int, str] = {
    1: "MTFTP address", 2: "MTFTP client port", 3: "MTFTP server port", 4: "MTFTP time-out", 5: "MTFTP delay",
    6: "discovery control", 7: "discovery multicast address", 8: "boot servers", 9: "boot menu", 10: "menu prompt",
    11: "multicast addresses", 12: "credential types", 71: "boot item", 255: "end",
}  # fmt: skip
"""By sub-option of option 43 (PXE 2.1 section 2.2.1, table 2-1)."""

_ADDRESSES = frozenset((1, 3, 6, 28, 50, 54, 150))
_NUMBERS = frozenset((13, 51, 57, 58, 59))
_TEXTS = frozenset((12, 15, 17, 56, 60, 66, 67, 209, 210))
_LIMIT = 120  # characters of one value


def described(message: Message) -> list[str]:
    """A line for each header field that is set and for each option, in the order they stand in."""
    lines = [f"{name} {value}" for name, value in _header(message)]
    lines += [f"{code:3} {NAMES.get(code, 'option')}: {value_text(code, value)}" for code, value in message.options]
    return lines


def value_text(code: int, value: bytes) -> str:
    """One option's value. Total: what makes no sense is shown as octets."""
    if code == dhcp4.MESSAGE_TYPE and len(value) == 1 and value[0] < len(dhcp4.TYPE_NAMES):
        return dhcp4.TYPE_NAMES[value[0]]
    if code in _ADDRESSES and value and len(value) % 4 == 0:
        return ", ".join(".".join(map(str, value[at : at + 4])) for at in range(0, min(len(value), 64), 4))
    if code in _NUMBERS and 0 < len(value) <= 4:
        return str(int.from_bytes(value, "big"))
    if code == dhcp4.ARCHITECTURE and len(value) % 2 == 0 and value:
        return ", ".join(architecture_text(number) for number in dhcp4.architectures(value)[:16])
    if code == dhcp4.MACHINE_ID and (uuid := dhcp4.machine_uuid(value)):
        return uuid
    if code == dhcp4.REQUEST_LIST:
        return printable(", ".join(str(one) for one in value), _LIMIT * 2)
    if code == dhcp4.VENDOR_SPECIFIC:
        return _pxe(value)
    if code == dhcp4.RELAY_AGENT:
        return _subs(value, {1: "circuit id", 2: "remote id", 5: "link selection", 11: "server override", 19: "port"})
    if code == dhcp4.USER_CLASS:
        return printable(b" ".join(dhcp4.user_classes(value)), _LIMIT)
    if code in _TEXTS:
        return printable(value.rstrip(b"\0"), _LIMIT)
    return _octets(value)


def architecture_text(number: int) -> str:
    """7 (UEFI x64)"""
    known = ARCHITECTURES.get(number)
    return f"{number} ({known[1]})" if known else f"{number} (unknown)"


def _header(message: Message) -> Iterator[tuple[str, str]]:
    if message.xid:
        yield "xid", f"0x{message.xid:08x}"
    for name in ("ciaddr", "yiaddr", "siaddr", "giaddr"):
        if (address := getattr(message, name)) != "0.0.0.0":
            yield name, address
    if message.flags & dhcp4.BROADCAST:
        yield "flags", "broadcast"
    for name in ("sname", "file"):
        if value := getattr(message, name):
            yield name, printable(value, _LIMIT)


def _pxe(value: bytes) -> str:
    return _subs(value, PXE_NAMES, padded=True)


def _subs(value: bytes, names: Mapping[int, str], padded: bool = False) -> str:
    try:
        pairs = dhcp4.sub_options(value, padded=padded)
    except WireError:
        return _octets(value)
    told = (f"{names.get(code, code)} {_guess(one)}" for code, one in pairs[:24])
    return printable("; ".join(told), 2 * _LIMIT)


def _guess(value: bytes) -> str:
    text = value.strip(b"\0")
    if len(text) > 2 and all(0x20 <= octet < 0x7F for octet in text):
        return printable(text, 60)
    return _octets(value)


def _octets(value: bytes) -> str:
    return value[:48].hex(" ") + ("…" if len(value) > 48 else "") if value else "(empty)"
