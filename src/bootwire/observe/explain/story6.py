"""What a machine and its servers say in DHCPv6, in sentences; who it is, where only that tells."""

from __future__ import annotations

from collections.abc import Iterator

from bootwire.observe import options6
from bootwire.observe.explain.gather import Machine, Said6, wants_file
from bootwire.policy.client import ARCHITECTURES
from bootwire.wire import dhcp4, dhcp6, ip6
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable


def firmware(machine: Machine) -> str:
    """ "UEFI x64", "iPXE UEFI x64": what it says of itself over IPv6, "" if it never says that it netboots."""
    asked = [one.message for one in machine.said6 if one.from_client and wants_file(one.message)]
    if not asked:
        return ""
    loader = "iPXE" if asked[0].option(dhcp6.USER_CLASS) == b"\0\4iPXE" else ""
    number = next(iter(dhcp4.architectures(asked[0].option(dhcp6.ARCHITECTURE) or b"")), -1)
    kind = "" if number < 0 else ARCHITECTURES.get(number, ("", f"architecture {number}"))[1]
    return f"{loader} {kind}".strip() or "firmware without an architecture"


def addresses(message: dhcp6.Message) -> list[str]:
    """The addresses given or wanted (IA_NA)."""
    found: list[str] = []
    for value in message.every(dhcp6.IA_NA):
        try:
            found += [ip6.text(one.address) for one in dhcp6.parse_association(value).addresses if one.valid]
        except WireError:
            continue
    return found[:16]


def refusal(message: dhcp6.Message) -> str:
    """ "NoAddrsAvail: no addresses available": the statuses of the message and of its addresses; "" for success."""
    values = message.every(dhcp6.STATUS)
    for value in message.every(dhcp6.IA_NA):
        try:
            status = dhcp6.parse_association(value).status
        except WireError:
            continue
        values += [status[0].to_bytes(2, "big") + status[1]] if status is not None else []
    told = [options6.status_text(value) for value in values[:4] if len(value) >= 2 and any(value[:2])]
    return "; ".join(dict.fromkeys(told))


def sentences(machine: Machine) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """(when, what, details) of each message."""
    who = firmware(machine) or "It"
    last, times = (0, -1), 0
    for one in machine.said6:
        if one.from_client:
            times = times + 1 if (one.message.kind, one.message.xid) == last else 1
            last = (one.message.kind, one.message.xid)
            again = f" again ({times})" if times > 1 else ""
            text = _asked(one, who) + again + (f", through relay {one.relay}" if one.relay else "") + "."
        else:
            text = _answered(one)
        yield one.at, text, tuple(options6.described(one.message))


def _asked(one: Said6, who: str) -> str:
    kind, wanted = one.message.kind, ", ".join(addresses(one.message))
    if kind == dhcp6.SOLICIT:
        return f"{who} asks over IPv6 who is there"
    if kind == dhcp6.REQUEST:
        return f"It asks for {wanted or 'an address'}"
    if kind == dhcp6.INFORMATION_REQUEST:
        return "It asks for settings over IPv6, not for an address"
    if kind in (dhcp6.RENEW, dhcp6.REBIND, dhcp6.CONFIRM):
        return f"It asks to keep {wanted or 'its address'} ({options6.TYPES[kind]})"
    if kind == dhcp6.RELEASE:
        return f"It gives {wanted or 'its address'} back"
    if kind == dhcp6.DECLINE:
        return f"It declines {wanted or 'its address'}: somebody else has it"
    return f"It sends {options6.TYPES.get(kind, f'DHCPv6 message type {kind}')}"


def _answered(one: Said6) -> str:
    if one.message.kind not in (dhcp6.ADVERTISE, dhcp6.REPLY):
        return f"{one.source} sends {options6.TYPES.get(one.message.kind, f'DHCPv6 message type {one.message.kind}')}."
    verb = "offers" if one.message.kind == dhcp6.ADVERTISE else "gives it"
    given = [f"the address {address}" for address in addresses(one.message)]
    if (url := one.message.option(dhcp6.BOOT_URL)) is not None:
        given.append(f"the file {printable(url.rstrip(bytes(1)), 120)}")
    why = refusal(one.message)
    if why:
        more = f", and {verb} {' and '.join(given)}" if given else ""
        return f"{one.source} refuses ({why}){more}."
    return f"{one.source} {verb} {' and '.join(given) or 'settings, and neither address nor file'}."
