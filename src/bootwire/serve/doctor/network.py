"""The network as the offers tell it: who is who, through which relay, over which router; who wins a machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from bootwire.observe.explain import signatures
from bootwire.observe.explain.gather import Said
from bootwire.policy import offers as sort
from bootwire.policy.target import relay_ids
from bootwire.serve.doctor.seen import NOWHERE, Report, Trial
from bootwire.wire import dhcp4, ip
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable


@dataclass(frozen=True, slots=True)
class Offer:
    """One responder's offer to one firmware.

    pxe         it says that it is a PXE server (option 60)
    relay       "" for none
    circuit_id  where a relay or switch left its option 82 in the answer (RFC 3046: it should not): the port that the
    remote_id   machine is at, and who says so; "" for none
    """

    firmware: str
    server: str
    source: str
    address: str
    mask: str
    router: str
    next_server: str
    file: str
    pxe: bool
    relay: str
    hops: int
    circuit_id: str = ""
    remote_id: str = ""

    @property
    def port(self) -> str:
        """Option 82 in words, "" for none."""
        parts = (
            f"circuit id {self.circuit_id}" * bool(self.circuit_id),
            f"remote id {self.remote_id}" * bool(self.remote_id),
        )
        return ", ".join(filter(None, parts))


def offers(report: Report) -> list[Offer]:
    """Each once, in the order they were heard."""
    found = [_offer(trial.firmware, one) for trial in report.trials for one in trial.offers]
    return list(dict.fromkeys(found))


def _offer(firmware: str, one: Said) -> Offer:
    message = one.message
    server = message.siaddr
    circuit, remote = (printable(one, 120) for one in relay_ids(message.option(dhcp4.RELAY_AGENT)))
    if server == NOWHERE:
        server = printable(message.option(dhcp4.TFTP_SERVER) or b"", 120)
    return Offer(
        firmware, one.server, one.source, "" if message.yiaddr == NOWHERE else message.yiaddr,
        dhcp4.address(message.option(dhcp4.SUBNET_MASK)) or "",
        dhcp4.address((message.option(dhcp4.ROUTER) or b"")[:4]) or "",
        server, printable(message.boot_file, 200), sort.is_pxe(message),
        "" if message.giaddr == NOWHERE else message.giaddr, message.hops, circuit, remote,
    )  # fmt: skip


def boot_servers(report: Report) -> dict[str, None]:
    """IPv4 addresses that files were asked from, or were offered from."""
    found: dict[str, None] = {}
    for trial in report.trials:
        machine = trial.machine
        for transfer in machine.transfers if machine is not None else ():
            found[transfer.server] = None
        for exchange in machine.connections if machine is not None else ():
            found[exchange.server] = None
    for one in offers(report):
        if one.file:
            host = urlsplit(one.file).hostname if "://" in one.file else one.next_server
            if host and _is_address(host):
                found[host] = None
    return found


def targets(report: Report) -> dict[str, list[str]]:
    """Address -> what it is here: boot server, router, relay, DHCP server, name server."""
    found: dict[str, list[str]] = {}

    def note(address: str, role: str) -> None:
        if address and address != NOWHERE and _is_address(address) and role not in found.setdefault(address, []):
            found[address].append(role)

    for server in boot_servers(report):
        note(server, "boot server")
    for one in offers(report):
        note(one.router, "router")
        note(one.relay, "relay")
        note(one.server, "DHCP server" if one.address else "boot server")
    if (host := report.host) is not None:
        for _, _, gateway in host.routes:
            note(gateway, "router")
        for server in host.dns:
            note(server, "name server")
        for server in host.ntp:
            note(server, "time server")
    return found


def elsewhere(report: Report, address: str) -> bool:
    """Whether an address is on another subnet than a plain host here."""
    host = report.host
    if host is None:
        return False
    shift = 32 - host.prefix
    return _number(host.address) >> shift != _number(address) >> shift


def router_to(report: Report, address: str) -> str:
    """Over which router a plain host reaches an address; "" for none, or for a neighbour."""
    if report.host is None or not elsewhere(report, address):
        return ""
    for network, prefix, gateway in sorted(report.host.routes, key=lambda one: -one[1]):
        shift = 32 - prefix
        if _number(network) >> shift == _number(address) >> shift:
            return gateway
    return ""


def _is_address(text: str) -> bool:
    try:
        ip.v4_octets(text)
    except WireError:
        return False
    return True


def _number(address: str) -> int:
    try:
        return int.from_bytes(ip.v4_octets(address), "big")
    except WireError:
        return 0


# --- who wins -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Win:
    """Whose boot a firmware took. server: the responder, "" for none; why: the rule; over: those that it passed by."""

    firmware: str
    server: str
    file: str
    why: str
    over: tuple[str, ...]


RULES: Mapping[str, str] = {
    "bios": "a BIOS takes the first offer of an address, and the first PXE server beside it; a server that offers both "
    "comes first",
    "uefi": "EDK2 waits 4 s, then: an offer of address and boot at once, then an address with a proxy's boot, then a "
    "DHCP server that says it is a PXE server, then a plain file name; the first of the best kind",
    "uefi-http": "UEFI HTTP Boot takes an address with a URL at once, then an address with a proxy's URL",
    "ipxe": "iPXE takes the DHCP server's own file name before any proxy's, and of several proxies the last",
    "u-boot": "U-Boot takes the first offer of an address, and hears no proxy",
    "raspberry-4": "the boot ROM takes an offer that says Raspberry Pi Boot",
    "raspberry-3": "the boot ROM takes an offer that says Raspberry Pi Boot",
}
"""EDK2 PxeBcSelectDhcp4Offer, HttpBootSelectDhcpOffer; iPXE src/net/udp/dhcp.c; U-Boot net/bootp.c; PXE 2.1 2.2.3."""


def win(trial: Trial) -> Win:
    """Whose boot it took, as its next steps show."""
    machine = trial.machine
    if machine is None:
        return Win(trial.firmware, "", "", "nobody offered anything", ())
    booting = {one.server: one for one in signatures.booting(machine)}
    where, name = _went(trial)
    taken = ""
    for server, one in booting.items():
        file = printable(one.message.boot_file, 200)
        if where and (one.message.siaddr == where or where in file or server == where):
            taken = server
            if name and name in file:
                break
    why = RULES.get(trial.firmware, "") if taken else "it took none of them" if booting else "nobody offered a boot"
    if taken and len(booting) == 1:
        why = "nobody else offers a boot"
    return Win(trial.firmware, taken, name, why, tuple(server for server in booting if server != taken))


def _went(trial: Trial) -> tuple[str, str]:
    """(server, name) of the first file asked for, or of the boot server asked on port 4011."""
    machine = trial.machine
    assert machine is not None
    first: list[tuple[int, str, str]] = [(each.began, each.server, each.name) for each in machine.transfers[:1]]
    web = machine.connections[:1]
    first += [(one.began, one.server, one.exchanges[0].path if one.exchanges else "") for one in web]
    first += [(asked.at, asked.destination, "") for asked in signatures.boot_requests(machine)[:1] if not first]
    return min(first, default=(0, "", ""))[1:]


def relayed(report: Report) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """(relay, servers whose answers came through it, `Offer.port` of those that have one).

    relay is "" where a switch left its option 82 in answers that came through no relay.
    """
    through: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for one in offers(report):
        if one.relay or one.port:
            servers, ports = through.setdefault(one.relay, ({}, {}))
            servers[one.server] = None
            if one.port:
                ports[one.port] = None
    for relay, (servers, ports) in through.items():
        yield relay, tuple(servers), tuple(ports)
