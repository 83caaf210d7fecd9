"""DHCPv6 messages in words: options by their names, values as people read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bootwire.observe.options import architecture_text, guess
from bootwire.wire import dhcp4, dhcp6, ip6
from bootwire.wire.dhcp6 import Message
from bootwire.wire.reader import Reader, WireError
from bootwire.wire.text import printable

TYPES: Mapping[int, str] = {
    1: "SOLICIT", 2: "ADVERTISE", 3: "REQUEST", 4: "CONFIRM", 5: "RENEW", 6: "REBIND", 7: "REPLY", 8: "RELEASE",
    9: "DECLINE", 10: "RECONFIGURE", 11: "INFORMATION-REQUEST", 12: "RELAY-FORW", 13: "RELAY-REPL",
}  # fmt: skip
"""RFC 8415 section 7.3."""

NAMES: Mapping[int, str] = {
    1: "client identifier", 2: "server identifier", 3: "address", 4: "temporary address", 5: "IA address",
    6: "requested options", 7: "preference", 8: "elapsed time", 9: "relayed message", 11: "authentication",
    12: "server unicast", 13: "status", 14: "rapid commit", 15: "user class", 16: "vendor class", 17: "vendor options",
    18: "interface id", 20: "reconfigure accept", 23: "name servers", 24: "domain search", 25: "prefix",
    31: "SNTP servers", 32: "information refresh time", 37: "remote id", 38: "subscriber id", 39: "client FQDN",
    56: "NTP servers", 59: "boot file URL", 60: "boot file parameters", 61: "client architecture",
    62: "network interface", 79: "client link-layer address", 82: "SOL_MAX_RT", 83: "INF_MAX_RT",
}  # fmt: skip
"""IANA "Dynamic Host Configuration Protocol for IPv6"."""

STATUSES: Mapping[int, str] = {
    0: "Success", 1: "UnspecFail", 2: "NoAddrsAvail", 3: "NoBinding", 4: "NotOnLink", 5: "UseMulticast",
    6: "NoPrefixAvail",
}  # fmt: skip
"""RFC 8415 section 21.13."""

_LIMIT = 240  # characters of one value
_MANY = 16


def described(message: Message) -> list[str]:
    """A line for the transaction and for each option, in the order they stand in."""
    lines = [f"xid 0x{message.xid:06x}"]
    lines += [f"{code:3} {NAMES.get(code, 'option')}: {value_text(code, value)}" for code, value in message.options]
    return lines


def value_text(code: int, value: bytes) -> str:
    """One option's value. Total: what makes no sense is shown as octets."""
    reader = _READERS.get(code)
    try:
        text = reader(value) if reader is not None else ""
    except WireError:
        text = ""
    return printable(text, _LIMIT) or (value[:48].hex(" ") + ("…" if len(value) > 48 else "") if value else "(empty)")


def status_text(value: bytes) -> str:
    """NoAddrsAvail: no addresses available"""
    code, text = dhcp6.parse_status(value)
    return STATUSES.get(code, str(code)) + (f": {printable(text, 120)}" if text else "")


def duid_text(value: bytes) -> str:
    """What kind of DUID, and what is in it (RFC 8415 section 11, RFC 6355)."""
    kind = int.from_bytes(value[:2], "big")
    if kind == 1 and len(value) > 8:
        return f"link-layer and time {value[8:].hex(':')}"
    if kind == 3 and len(value) > 4:
        return f"link-layer {value[4:].hex(':')}"
    if kind == 4 and len(value) == 18:
        return f"UUID {value[2:].hex()}"  # in whichever order it was sent: RFC 6355 and EDK2 differ
    return value.hex(" ")


def vendor_classes(value: bytes) -> tuple[int, tuple[bytes, ...]]:
    """(enterprise number, the classes) of option 16. Raises WireError."""
    r = Reader(value)
    number = r.u32("enterprise number")
    found: list[bytes] = []
    while r.left() and len(found) < _MANY:
        found.append(r.take(r.u16("length"), "vendor class"))
    return number, tuple(found)


def _association(value: bytes) -> str:
    found = dhcp6.parse_association(value)
    told = [f"{ip6.text(one.address)} for {_seconds(one.valid)}" for one in found.addresses[:_MANY]]
    if found.status is not None:
        code, text = found.status
        told.append(status_text(code.to_bytes(2, "big") + text))
    return f"IAID {found.iaid:08x}" + "".join(f", {one}" for one in told)


def _seconds(number: int) -> str:
    return "ever" if number == dhcp6.FOREVER else f"{number} s"


def _vendor_class(value: bytes) -> str:
    number, classes = vendor_classes(value)
    return f"enterprise {number}: {' '.join(printable(one, 120) for one in classes)}"


def _user_class(value: bytes) -> str:
    r = Reader(value)
    told: list[str] = []
    while r.left() and len(told) < _MANY:
        told.append(printable(r.take(r.u16("length"), "user class"), 120))
    return " ".join(told)


def _vendor_options(value: bytes) -> str:
    """Option 17 (RFC 8415 section 21.17): enterprise number, then options of its own."""
    r = Reader(value)
    told = [f"enterprise {r.u32('enterprise number')}"]
    while r.left() and len(told) <= _MANY:
        code = r.u16("code")
        told.append(f"{code} {guess(r.take(r.u16('length'), 'vendor option'))}")
    return "; ".join(told)


def _numbers(value: bytes) -> str:
    return ", ".join(str(int.from_bytes(value[at : at + 2], "big")) for at in range(0, len(value) - 1, 2))


_READERS: Mapping[int, Callable[[bytes], str]] = {
    dhcp6.CLIENT_ID: duid_text,
    dhcp6.SERVER_ID: duid_text,
    dhcp6.IA_NA: _association,
    dhcp6.REQUEST_LIST: _numbers,
    dhcp6.PREFERENCE: lambda value: str(value[0]) if len(value) == 1 else "",
    dhcp6.ELAPSED: lambda value: f"{int.from_bytes(value, 'big') * 10} ms" if len(value) == 2 else "",
    dhcp6.STATUS: status_text,
    dhcp6.USER_CLASS: _user_class,
    dhcp6.VENDOR_CLASS: _vendor_class,
    dhcp6.VENDOR_OPTIONS: _vendor_options,
    32: lambda value: f"{int.from_bytes(value, 'big')} s" if len(value) == 4 else "",
    dhcp6.DNS: lambda value: ", ".join(ip6.text(one) for one in dhcp6.addresses(value)[:_MANY]),
    dhcp6.DOMAINS: lambda value: ", ".join(printable(one, 120) for one in dhcp6.domains(value)[:_MANY]),
    dhcp6.BOOT_URL: lambda value: printable(value.rstrip(b"\0"), _LIMIT),
    dhcp6.BOOT_PARAMETERS: lambda value: " ".join(printable(one, 120) for one in dhcp6.parameters(value)[:_MANY]),
    dhcp6.ARCHITECTURE: lambda value: ", ".join(architecture_text(one) for one in dhcp4.architectures(value)[:_MANY]),
    dhcp6.NIC_INTERFACE: lambda value: f"UNDI {value[1]}.{value[2]}" if len(value) == 3 and value[0] == 1 else "",
}
