"""The ways to who matters on this network: round trips and loss, what fits through, routers that are dead, addresses
that somebody else has. By echo and ARP from our own card; what is unreachable is given up after few tries."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from bootwire.engine.ip import Conflict, EchoReply, Undelivered
from bootwire.preboot.stack import Stack, Undeliverable, packed, text
from bootwire.serve.doctor.seen import Echoes, PathMtu
from bootwire.wire import ip

TARGETS = 12
"""Hosts asked at most."""

_ECHOES, _MORE = 10, 40  # to each host; to one that lost some of the first
_PATIENCE = 0.5  # seconds for an echo
_FIRST, _ARP = 1.0, 3.5  # seconds for all first ones; and where ARP goes on asking, until it gives up
_OVERHEAD = 28  # octets of the IPv4 header and of an echo before its data
_SIZES = (9000, 1500, 1492, 1480, 1472, 1460, 1450, 1420, 1400, 1380, 1300, 1280, 1200, 1024, 900, 576)
"""Octets of IP packets that links are known for: Ethernet, PPPoE (RFC 2516), GRE, VXLAN, WireGuard, IPv6's least, …"""
_PROBED = 1.2  # seconds: an address that is probed for is ours after one (RFC 5227 section 2.1)


def echoes(stack: Stack, targets: Mapping[str, Sequence[str]]) -> list[Echoes]:
    """Round trips to hosts (address -> what they are); more of them where some were lost."""
    chosen = {address: tuple(roles) for address, roles in list(targets.items())[:TARGETS]}
    first = _first(stack, list(chosen))
    found: list[Echoes] = []
    for address, roles in chosen.items():
        why, by = first[address]
        if why:
            found.append(Echoes(address, roles, 1, (), why, by))
        else:
            found.append(_more(stack, address, roles))
    return found


def _first(stack: Stack, addresses: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Address -> ("", "") for who answers, ("silent", "") for who does not, (why, who says so) for who is unreachable.

    All at once, so that what is silent or dead costs its time only once.
    """
    identifier = secrets.randbits(16)
    wanted = {packed(one): one for one in addresses}
    found: dict[str, tuple[str, str]] = {}
    with stack.acting() as now:
        for target, one in wanted.items():
            if trouble := stack.host.ping(target, identifier, 0, now):
                found[one] = (trouble, "")
    began = time.monotonic()

    def settled() -> bool:
        for event in list(stack.host.events):
            match event:
                case EchoReply(source=target, identifier=number) if number == identifier and target in wanted:
                    found.setdefault(wanted[target], ("", ""))
                case Undelivered(destination=target) if target in wanted:
                    found.setdefault(wanted[target], (event.because, text(event.by) if event.by else ""))
                case _:
                    continue
            stack.host.events.remove(event)
        left = [target for target, one in wanted.items() if one not in found]
        return not left or (time.monotonic() - began > _FIRST and all(_near(stack, target) for target in left))

    until = began + _ARP
    while not stack.wait(settled, 0.1) and time.monotonic() < until:
        pass
    return {one: found.get(one, ("silent", "")) for one in addresses}


def _near(stack: Stack, target: bytes) -> bool:
    """Whether the next hop towards an address has answered ARP."""
    route = stack.host.routes.find(target)
    hop = route.gateway if route is not None and route.gateway is not None else target
    return any(address == hop and mac is not None for address, mac, _ in stack.host.neighbours.table())


def _more(stack: Stack, address: str, roles: tuple[str, ...]) -> Echoes:
    times: list[float] = []
    sent, wanted, why, by = 0, _ECHOES, "", ""
    identifier = secrets.randbits(16)
    while sent < wanted:
        sent += 1
        try:
            times.append(stack.ping(address, timeout=_PATIENCE, identifier=identifier, sequence=sent))
        except TimeoutError:
            why, wanted = "silent", _MORE
        except Undeliverable as error:
            why, by, wanted = error.strerror or "", error.by, _MORE
        if sent > _ECHOES and sent - len(times) > _ECHOES:
            break  # so bad that it need not be measured on
    return Echoes(address, roles, sent, tuple(sorted(times)), why, by)


def mtu(stack: Stack, address: str) -> PathMtu:
    """The longest packet that passes whole there and back: of `_SIZES`, and the next hop that a router names."""
    ours = stack.host.mtu
    passes, by = _passes(stack, address, ours)
    if passes:
        return PathMtu(address, ours, ours)
    with stack.acting() as now:
        named = stack.host.path_mtu(packed(address), now)
    sizes = sorted({named, *_SIZES} - {size for size in _SIZES if size >= ours} - {ours}, reverse=True)
    best, low, high = 0, 0, len(sizes) - 1
    while low <= high:
        middle = (low + high) // 2
        passes, said = _passes(stack, address, sizes[middle])
        by = by or said
        if passes:
            best, high = sizes[middle], middle - 1
        else:
            low = middle + 1
    return PathMtu(address, ours, best, by)


def _passes(stack: Stack, address: str, size: int) -> tuple[bool, str]:
    """Whether a packet of that size is answered; the router that says no."""
    for _ in range(2):  # one may be lost
        try:
            stack.ping(address, timeout=_PATIENCE, size=size - _OVERHEAD, identifier=secrets.randbits(16), whole=True)
        except TimeoutError:
            continue
        except Undeliverable as error:
            return False, error.by
        except OSError:
            return False, ""
        return True, ""
    return False, ""


def conflicts(stack: Stack, addresses: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Who else answers for addresses that DHCP gave to machines that are off now: probed for as RFC 5227 has it."""
    wanted = [packed(one) for one in dict.fromkeys(addresses)]
    found: dict[str, list[str]] = {}
    with stack.acting() as now:
        mine = {address for address, _ in stack.host.addresses}
        probed = [one for one in wanted if one not in mine and one != ip.ANY_V4]
        for address in probed:
            stack.host.add_address(address, 32, now, probe=True)
    stack.wait(lambda: all(stack.host.owns(one) is not None for one in probed), _PROBED)
    with stack.acting():
        for event in list(stack.host.events):
            match event:
                case Conflict(address, mac) if len(address) == 4:
                    found.setdefault(text(address), []).append(mac.hex(":"))
        for address in probed:
            stack.host.remove_address(address)
    return {address: tuple(dict.fromkeys(macs)) for address, macs in found.items()}
