"""Signatures: what in a machine's conversations shows which cause. Each looks for one thing and yields its values.

Longer than other files, since it is one table: a signature is a short function, and they share what stands on top.
Sources: the causes they name (`causes`), and the firmware behaviour they rely on, stated at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bootwire.observe import names
from bootwire.observe.explain import story6
from bootwire.observe.explain.causes import CAUSES, ORDER, Severity
from bootwire.observe.explain.gather import SECOND, Capture, Machine, Said, Said6
from bootwire.observe.explain.transfers import Exchange, Transfer
from bootwire.policy import offers as sort
from bootwire.policy import quirks
from bootwire.policy.client import Client, Kind
from bootwire.wire import dhcp4, dhcp6, icmp, ip
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

NOWHERE = "0.0.0.0"
Values = Mapping[str, object]

PROXY_WAIT = {Kind.IPXE: 2.0}
"""Seconds that firmware waits for a proxy's offer: iPXE 2 (dhcp.c), EDK2 and BIOS ROMs 4 (their first DISCOVER's)."""

_PE = {0x014C: "i386", 0x8664: "x86_64", 0x01C2: "arm32", 0xAA64: "arm64", 0x5064: "riscv64", 0x6264: "loong64"}
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or worth knowing. machine: "" for the network as a whole."""

    cause: str
    severity: Severity
    machine: str
    because: str
    fix: str
    source: str


def findings(capture: Capture) -> list[Finding]:
    """All of them, the worst first, each once for a machine."""
    found: list[Finding] = []
    for machine in capture.machines.values():
        if machine.boots:
            for cause, look in SIGNATURES:
                found += _told(cause, machine.mac, look(machine, capture))
    for cause, watch in OF_ALL:
        found += _told(cause, "", watch(capture))
    return sorted(dict.fromkeys(found), key=lambda one: ORDER.index(one.severity))


def _told(ident: str, machine: str, values: Iterator[Values]) -> Iterator[Finding]:
    cause = CAUSES[ident]
    for count, each in enumerate(values):
        if count == 8:  # of one kind; more say nothing new
            return
        because, fix = cause.because.format_map(each), cause.fix.format_map(each)
        yield Finding(cause.id, cause.severity, machine, printable(because, 600), printable(fix, 600), cause.source)


# --- what a machine did -----------------------------------------------------------------------------------------


def firmware(machine: Machine) -> Client | None:
    """What it is before any loader runs: the first that says it netboots and is not iPXE, else iPXE itself."""
    asked = [one.client for one in machine.said if one.from_client and one.client.kind not in (Kind.HOST, Kind.BOOTP)]
    return next((client for client in asked if client.kind is not Kind.IPXE), asked[0] if asked else None)


def discovers(machine: Machine) -> list[Said]:
    """Its questions for offers, in order."""
    return machine.of(dhcp4.DISCOVER, client=True)


def leases(machine: Machine) -> list[Said]:
    """Offers with an address."""
    return [one for one in machine.of(dhcp4.OFFER, client=False) if one.message.yiaddr != NOWHERE]


def proxies(machine: Machine) -> list[Said]:
    """Offers without an address: of boot servers."""
    return [one for one in machine.of(dhcp4.OFFER, client=False) if one.message.yiaddr == NOWHERE]


def booting(machine: Machine) -> list[Said]:
    """Offers with something to boot, or of somebody to ask for it."""
    return [one for one in machine.of(dhcp4.OFFER, client=False) if one.message.boot_file or sort.is_pxe(one.message)]


def boot_requests(machine: Machine) -> list[Said]:
    """Questions to port 4011."""
    return [one for one in machine.of(dhcp4.REQUEST_LEASE, client=True) if one.dport == dhcp4.PXE_PORT]


def went_on(machine: Machine) -> bool:
    """It followed some offer."""
    return bool(machine.transfers or machine.exchanges or boot_requests(machine))


def answers_to(machine: Machine, asked: Said, until: int = _NEVER) -> list[Said]:
    """Replies with its xid, later than it."""
    same = (one for one in machine.said if not one.from_client and one.message.xid == asked.message.xid)
    return [one for one in same if asked.at <= one.at < until]


def waited(capture: Capture, since: int) -> bool:
    """The capture goes on for a second after that: an answer would be in it."""
    return capture.ended - since > SECOND


def _only(machine: Machine) -> bool:
    """A machine that got nowhere: only DISCOVERs."""
    return bool(discovers(machine)) and not machine.of(dhcp4.REQUEST_LEASE, client=True) and not went_on(machine)


def _behind(machine: Machine) -> str:
    """Its relay agent: in what the agent hands on, and in what comes back to the machine."""
    asked = [*discovers(machine), *machine.of(dhcp4.OFFER, client=False)]
    return next((one.message.giaddr for one in asked if one.message.giaddr != NOWHERE), "")


def _text(raw: bytes) -> str:
    return printable(raw, 120)


# --- DHCP -------------------------------------------------------------------------------------------------------


def _nothing_answers(machine: Machine, capture: Capture) -> Iterator[Values]:
    asked = discovers(machine)
    if asked and waited(capture, asked[0].at) and _only(machine) and not machine.of(dhcp4.OFFER, client=False):
        yield {"count": len(asked), "seconds": f"{(asked[-1].at - asked[0].at) / SECOND:.0f}"}


def _no_boot_server(machine: Machine, _: Capture) -> Iterator[Values]:
    offered = leases(machine)
    if offered and not booting(machine) and not went_on(machine) and not _behind(machine) and _netboots(machine):
        yield {"server": offered[0].server}


def _netboots(machine: Machine) -> bool:
    return firmware(machine) is not None


def _no_dhcp_server(machine: Machine, _: Capture) -> Iterator[Values]:
    offered = proxies(machine)
    if offered and not leases(machine) and _only(machine) and len(discovers(machine)) > 1:
        yield {"server": offered[0].server}


def _second_server(machine: Machine, _: Capture) -> Iterator[Values]:
    servers = dict.fromkeys(one.server for one in booting(machine))
    if len(servers) > 1:
        yield {"count": len(servers), "servers": ", ".join(list(servers)[:8])}


def _vendor_class_alone(machine: Machine, _: Capture) -> Iterator[Values]:
    said = {one.server: None for one in leases(machine) if sort.is_pxe(one.message) and not one.message.boot_file}
    if not machine.transfers:
        for server in said:
            answered = any(one.source == server and one.sport == dhcp4.PXE_PORT for one in machine.said)
            if not answered:
                yield {"server": server}


def _offers_ignored(machine: Machine, _: Capture) -> Iterator[Values]:
    plain = [one for one in leases(machine) if not one.message.boot_file]
    if plain and proxies(machine) and _only(machine) and len(discovers(machine)) >= 3 and not _behind(machine):
        yield {"server": plain[0].server, "proxy": proxies(machine)[0].server, "count": len(discovers(machine))}


def _proxy_ignored(machine: Machine, capture: Capture) -> Iterator[Values]:
    given = [one for one in machine.of(dhcp4.ACK, client=False) if one.message.yiaddr != NOWHERE]
    proxy = [one for one in proxies(machine) if one.message.boot_file or sort.is_pxe(one.message)]
    late = any(True for _ in _proxy_late(machine, capture))
    tried = machine.connections or any(True for _ in _arp_silent(machine, capture))
    if (
        given
        and proxy
        and not went_on(machine)
        and not late
        and not tried
        and capture.ended - given[0].at > 10 * SECOND
    ):
        yield {"server": given[0].server, "proxy": proxy[0].server}


def _proxy_late(machine: Machine, _: Capture) -> Iterator[Values]:
    for asked in discovers(machine)[:16]:
        limit = PROXY_WAIT.get(asked.client.kind, 4.0)
        offered = [one for one in answers_to(machine, asked) if one.message.type == dhcp4.OFFER]
        first = next((one for one in offered if one.message.yiaddr == NOWHERE), None)
        chosen = next((one for one in machine.of(dhcp4.REQUEST_LEASE, client=True) if one.at >= asked.at), None)
        repeated = any(one is not asked and first and asked.at < one.at < first.at for one in discovers(machine))
        if first is None or repeated or went_on(machine):
            continue
        seconds = (first.at - asked.at) / SECOND
        if seconds > limit or (chosen is not None and chosen.at < first.at):
            yield {"proxy": first.server, "seconds": f"{seconds:.1f}"}
            return


def _bad_offer(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.of(dhcp4.OFFER, dhcp4.ACK, client=False):
        if why := refused_by_edk2(one.data):
            yield {"server": one.server, "why": why}
            return


def refused_by_edk2(data: bytes) -> str:
    """Why EDK2 drops a reply unseen: no END, an option of no octets (DhcpValidateOptions); "" where it takes it."""
    at = 240
    while at < len(data):
        code = data[at]
        if code == dhcp4.END:
            return ""
        if code == dhcp4.PAD:
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        if not size:
            return f"option {code} has no octets"
        at += 2 + size
    return "there is no END option"


def _without_mask(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in leases(machine):
        if one.message.option(dhcp4.SUBNET_MASK) is None and _uefi(machine):
            yield {"server": one.server}
            return


def _without_server(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in leases(machine):
        if one.message.option(dhcp4.SERVER_ID) is None:
            yield {"server": one.source}
            return


def _uefi(machine: Machine) -> bool:
    client = firmware(machine)
    return client is not None and client.kind in (Kind.PXE, Kind.HTTP) and not client.bios


def _menu_broken(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in booting(machine):
        tags = sort.tags(one.message)
        pxe = sort.vendor(one.message)
        direct = (pxe.control or 0) & dhcp4.USE_BOOT_FILE
        if (tags & {dhcp4.PXE_CONTROL, dhcp4.PXE_SERVERS} and not direct and not (pxe.menu and pxe.prompt)) and (
            not pxe.others and sort.is_pxe(one.message)
        ):
            yield {"server": one.server}
            return


def _pxe_unanswered(machine: Machine, capture: Capture) -> Iterator[Values]:
    asked = boot_requests(machine)
    by_server = {one.destination: one for one in reversed(asked) if waited(capture, one.at)}
    for server, first in by_server.items():
        if not any(_answers(one, server) for one in machine.said):
            closed = any(p.type == icmp.UNREACHABLE4 and source == server for _, source, p in machine.problems)
            if not closed and not machine.transfers:
                yield {"server": first.destination, "count": sum(one.destination == server for one in asked)}


def _answers(one: Said, server: str) -> bool:
    return not one.from_client and one.source == server and (one.sport == dhcp4.PXE_PORT or one.dport == dhcp4.PXE_PORT)


def _pxe_answer_lost(machine: Machine, _: Capture) -> Iterator[Values]:
    for server in dict.fromkeys(one.destination for one in boot_requests(machine)):
        count = sum(one.destination == server for one in boot_requests(machine))
        if count >= 3 and any(_answers(one, server) for one in machine.said) and not machine.transfers:
            yield {"server": server, "count": count}


def _pxe_wrong_port(machine: Machine, _: Capture) -> Iterator[Values]:
    for asked in boot_requests(machine):
        for one in answers_to(machine, asked):
            if one.source == asked.destination and one.sport != dhcp4.PXE_PORT and one.message.type == dhcp4.ACK:
                yield {"server": one.source, "port": one.sport}
                return


def _relay_drops(machine: Machine, _: Capture) -> Iterator[Values]:
    relay = _behind(machine)
    handed = any(not one.from_client and one.dport == dhcp4.CLIENT_PORT for one in machine.said)
    if relay and _only(machine) and booting(machine) and not handed and len(discovers(machine)) > 1:
        yield {"relay": relay}


def _relay_not_to_us(machine: Machine, _: Capture) -> Iterator[Values]:
    relay = _behind(machine)
    if relay and leases(machine) and not booting(machine) and not went_on(machine) and _netboots(machine):
        yield {"relay": relay, "server": leases(machine)[0].server}


def _lease_refused(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.of(dhcp4.NAK, client=False)[:1]:
        yield {"server": one.server}


def _file_wins(machine: Machine, _: Capture) -> Iterator[Values]:
    proxy = next((one for one in proxies(machine) if one.message.boot_file), None)
    for one in leases(machine):
        if proxy and one.message.boot_file and one.server != proxy.server:
            yield {"server": one.server, "name": _text(one.message.boot_file), "proxy": proxy.server}
            return


def _no_next_server(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.of(dhcp4.OFFER, client=False):
        if sort.lacks_server(one.message):
            yield {"server": one.server, "name": _text(one.message.boot_file)}
            return


def _without_features(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.said:
        client = one.client
        if one.from_client and client.kind is Kind.IPXE and client.knows_features:
            wanted = [dhcp4.IPXE_HTTP] + ([dhcp4.IPXE_BZIMAGE] if client.bios else [])
            missing = [dhcp4.FEATURES[code] for code in wanted if code not in client.features]
            if missing:
                yield {"missing": " and ".join(missing)}
                return


def _no_uri(machine: Machine, _: Capture) -> Iterator[Values]:
    asks = any(one.from_client and one.client.kind is Kind.HTTP for one in machine.said)
    files = [(one.server, one.message.boot_file) for one in machine.of(dhcp4.OFFER, client=False)]
    if (asks and not machine.exchanges and any(name for _, name in files)) and (
        not any(name.lower().startswith((b"http://", b"https://")) for _, name in files)
    ):
        server, name = next((server, name) for server, name in files if name)
        yield {"server": server, "name": _text(name)}


def _too_big(machine: Machine, _: Capture) -> Iterator[Values]:
    for asked in discovers(machine)[:8]:
        limit = asked.message.max_octets
        for one in answers_to(machine, asked):
            if len(one.data) > limit:
                yield {"server": one.server, "octets": len(one.data), "limit": limit}
                return


def _disagrees(machine: Machine, _: Capture) -> Iterator[Values]:
    client = firmware(machine)
    if client and quirks.ARCH_DISAGREES in client.quirks:
        yield {}


# --- files over TFTP --------------------------------------------------------------------------------------------


def fetched(machine: Machine, transfer: Transfer) -> bool:
    """The same file came whole later, or by another request: what went wrong before did not matter."""
    return any(one.complete and one.raw == transfer.raw for one in machine.transfers)


def is_probe(machine: Machine, transfer: Transfer) -> bool:
    """A question for the size, broken off by the client before the first block was acknowledged (codes 0 and 8)."""
    return transfer.who == "client" and transfer.code in (0, 8) and transfer.acked < 1 and "tsize" in transfer.asked


def _tftp_error(*codes: int) -> Callable[[Machine, Capture], Iterator[Values]]:
    def look(machine: Machine, _: Capture) -> Iterator[Values]:
        for one in machine.transfers:
            of_these = one.code in codes if codes else one.code not in (1, 2)
            if one.who == "server" and of_these and not names.optional(one.name) and not fetched(machine, one):
                stage = names.stage_of(one.name)
                if codes == (1,) and stage in ("kernel", "initrd", "script"):
                    continue  # told as such
                yield {"server": one.server, "name": one.name, "text": one.text or f"error {one.code}"}

    return look


def _missing(stage: str) -> Callable[[Machine, Capture], Iterator[Values]]:
    def look(machine: Machine, _: Capture) -> Iterator[Values]:
        for one in machine.transfers:
            if (one.who == "server" and one.code == 1 and names.stage_of(one.name) == stage) and (
                not names.optional(one.name)
            ):
                yield {"server": one.server, "name": one.name, "text": one.text}
        for exchange in machine.exchanges:
            if (exchange.status in (403, 404, 410) and names.stage_of(exchange.path.lstrip("/")) == stage) and (
                not names.optional(exchange.path)
            ):
                yield {"server": exchange.server, "name": exchange.path, "text": str(exchange.status)}

    return look


def _garbage(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        if one.raw and not 0x20 <= one.raw[-1] < 0x7F:
            yield {"name": one.name}
            return


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _replies_lost(machine: Machine, capture: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        closed = any(problem.type == icmp.UNREACHABLE4 for _, _, problem in machine.problems)
        # where the machine lives on, a filter kept the answers, which come from other ports, out of the capture
        silent = not one.answered and not one.who and waited(capture, one.began) and not _lives(machine, one.began)
        if silent and not closed and not fetched(machine, one):
            yield {"server": one.server, "name": one.name, "times": _times(one.repeats + 1)}


def _not_heard(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        silent = one.acked < 0 and one.who != "client"
        if (one.answered and one.repeats >= 2 and silent and one.who != "server" and one.highest <= 1) and (
            not fetched(machine, one)
        ):
            yield {
                "server": one.server, "name": one.name, "count": one.repeats + 1, "from": one.answered_from,
            }  # fmt: skip


def _big_blocks(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        stuck = one.data_repeats >= 2 and one.acked < one.highest and not one.complete
        early = one.highest <= 2 and one.block_size > 1408 and one.who != "client"
        if stuck and early and not fetched(machine, one):
            values = {"size": one.block_size, "name": one.name, "block": one.highest, "count": one.data_repeats + 1}
            yield values


def _storm(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        if one.blocks >= 8 and one.data_repeats >= one.blocks // 2 and one.ack_repeats >= one.blocks // 2:
            yield {"name": one.name, "times": round(1 + one.data_repeats / one.blocks)}
            return


def _broke_off(machine: Machine, capture: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        if (
            _is_broken(machine, one, capture)
            and not _wraps(one)
            and not any(True for _ in _big_blocks(machine, capture))
        ):
            yield {"name": one.name, "octets": one.octets, "block": one.highest}


def _is_broken(machine: Machine, one: Transfer, capture: Capture) -> bool:
    quiet = capture.ended - one.ended > 5 * SECOND or machine.last > one.ended
    return one.highest >= 1 and not one.complete and not one.who and quiet and not fetched(machine, one)


def _wraps(one: Transfer) -> bool:
    return 65_530 <= one.highest <= 65_540


def _wrapped(machine: Machine, capture: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        if _wraps(one) and not one.complete and not fetched(machine, one):
            yield {"name": one.name, "size": one.block_size}


def _no_tsize(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        if ("tsize" in one.asked and one.agreed is not None and "tsize" not in one.agreed and _uefi(machine)) and (
            not fetched(machine, one)
        ):
            yield {"server": one.server, "name": one.name}
            return


def _exceeded(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        for name, value in (one.agreed or {}).items():
            asked = one.asked.get(name)
            bigger = name in ("blksize", "windowsize") and asked and value.isdigit() and asked.isdigit()
            if asked is None or (bigger and int(value[:10]) > int(asked[:10])):
                yield {"server": one.server, "what": f"{name} {value}, asked for: {asked or 'nothing'}"}
                return


def _client_refused(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        if one.who == "client" and not is_probe(machine, one) and not fetched(machine, one):
            yield {"name": one.name, "text": one.text or f"error {one.code}"}


def _too_big_loader(machine: Machine, _: Capture) -> Iterator[Values]:
    """A BIOS asked for the size of a file that does not fit, and left it at that."""
    client = firmware(machine)
    for one in machine.transfers:
        size = (one.agreed or {}).get("tsize", "")
        big = size.isdigit() and len(size) < 12 and int(size) > 500 << 10
        if (client and client.bios and big and is_probe(machine, one)) and not any(
            other.raw == one.raw and other is not one and not is_probe(machine, other) for other in machine.transfers
        ):
            yield {"name": one.name, "octets": f"{int(size):,}"}
            return


def _probe(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.transfers:
        if is_probe(machine, one):
            yield {"name": one.name}
            return


def _fragments(machine: Machine, capture: Capture) -> Iterator[Values]:
    for (source, destination), count in capture.lost_fragments.items():
        if destination in machine.addresses:
            yield {"server": source, "count": count}


# --- loaders ----------------------------------------------------------------------------------------------------


def loaders(machine: Machine) -> list[tuple[str, int, bytes]]:
    """(name, when it was there, first octets) of every loader that came whole."""
    got = [(one.name, one.ended, one.head) for one in machine.transfers if one.complete and _is_loader(one.name)]
    got += [
        (one.path, one.ended, b"")
        for one in machine.exchanges
        if one.method == "GET" and one.status == 200 and one.complete and _is_loader(one.path)
    ]
    return sorted(got, key=lambda one: one[1])


def _is_loader(name: str) -> bool:
    return names.stage_of(name) in ("loader", "program")


def _lives(machine: Machine, since: int) -> bool:
    """Something that only a loader does, later than `since`: iPXE asks DHCP, another file is fetched."""
    ipxe = any(one.from_client and one.client.kind is Kind.IPXE and one.at > since for one in machine.said)
    files = any(one.began > since and not _is_loader(one.name) for one in machine.transfers)
    web = any(one.began > since and not _is_loader(one.path) for one in machine.exchanges)
    return ipxe or files or web


def _loop(machine: Machine, _: Capture) -> Iterator[Values]:
    counts: dict[str, int] = {}
    for name, *_rest in loaders(machine):
        counts[name] = counts.get(name, 0) + 1
    ipxe = any(one.from_client and one.client.kind is Kind.IPXE for one in machine.said)
    for name, count in counts.items():
        script = any(names.stage_of(one.path.lstrip("/")) in ("script", "kernel") for one in machine.exchanges)
        if count >= 3 and ipxe and not script:
            yield {"name": name, "count": count}


def _architecture(machine: Machine, _: Capture) -> Iterator[Values]:
    client = firmware(machine)
    if client is None or not client.platforms:
        return
    for name, ended, head in loaders(machine):
        found = _made_for(head) or _named_for(name)
        if found and found not in client.platforms and not _lives(machine, ended):
            yield {"name": name, "found": found, "client": client.summary}
            return


def _made_for(head: bytes) -> str:
    """The directory of the processor that a file's own header names; "" where it names none."""
    if head[:2] == b"MZ" and len(head) >= 64:
        at = int.from_bytes(head[60:64], "little")
        if head[at : at + 4] == b"PE\0\0":
            return _PE.get(int.from_bytes(head[at + 4 : at + 6], "little"), "")
    return ""


def _named_for(name: str) -> str:
    last = name.lower().rpartition("/")[2]
    if last.endswith((".kpxe", ".kkpxe", ".pxe", ".0")):
        return "bios"
    ends = {"x64.efi": "x86_64", "aa64.efi": "arm64", "ia32.efi": "i386", "arm.efi": "arm32"}
    return next((where for end, where in ends.items() if last.endswith(end)), "")


def _refused(machine: Machine, capture: Capture) -> Iterator[Values]:
    got = loaders(machine)
    if not got or any(True for _ in _architecture(machine, capture)):
        return
    name, ended, _head = got[-1]
    again = any(one.at > ended and one.client.kind is not Kind.IPXE for one in discovers(machine))
    if not _lives(machine, ended) and (again or capture.ended - ended > 10 * SECOND):
        yield {"name": name}


def _kernel_again(machine: Machine, _: Capture) -> Iterator[Values]:
    """A script has the same kernel whole three times, and nothing that it asks for is missing: it cannot start it."""
    got = [one for one in machine.exchanges if one.method == "GET" and names.stage_of(one.path.lstrip("/")) == "kernel"]
    if any(one.status >= 400 or not one.complete for one in machine.exchanges):
        return
    for name in dict.fromkeys(one.path for one in got):
        count = sum(one.path == name for one in got)
        if count >= 3:
            yield {"name": name, "count": count}


def _shim(machine: Machine, _: Capture) -> Iterator[Values]:
    for name in [one.name for one in machine.transfers] + [one.path for one in machine.exchanges]:
        if name.lower().rpartition("/")[2].startswith("mmx64") or name.lower().endswith("mmaa64.efi"):
            yield {"name": name}
            return


# --- HTTP, names, addresses -------------------------------------------------------------------------------------


def _http(holds: Callable[[Exchange], bool]) -> Callable[[Machine, Capture], Iterator[Values]]:
    def look(machine: Machine, _: Capture) -> Iterator[Values]:
        for one in machine.exchanges:
            if holds(one):
                text = str(one.status) + (f", {one.location}" if one.location else "")
                yield {"server": one.server, "name": one.path, "text": text}

    return look


def _by_uefi(one: Exchange) -> bool:
    return one.agent.startswith("UefiHttpBoot")


def _plainly_missing(one: Exchange) -> bool:
    stage = names.stage_of(one.path.lstrip("/"))
    return (
        one.status in (403, 404, 410) and stage not in ("kernel", "initrd", "script") and not names.optional(one.path)
    )


_UEFI_TYPES = ("application/efi", "application/vnd.efi-iso", "application/vnd.efi-img")


def _wrong_type(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.exchanges:
        known = one.kind in _UEFI_TYPES or one.path.lower().endswith((".efi", ".iso", ".img"))
        if _by_uefi(one) and one.status == 200 and not known:
            yield {"server": one.server, "name": one.path, "text": one.kind or "nothing"}
            return


def _http_cut(machine: Machine, capture: Capture) -> Iterator[Values]:
    for one in machine.exchanges:
        if one.status in (200, 206) and not one.complete and one.ended < capture.ended - 2 * SECOND:
            again = any(o.path == one.path and o is not one and o.complete for o in machine.exchanges)
            if not again and not capture.cut:
                yield {"name": one.path, "octets": one.octets, "length": one.length}


def _damaged(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.exchanges:
        if one.damaged:
            yield {"server": one.server, "name": one.path, "text": one.damaged}


def _blocked(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.connections:
        if one.syns >= 2 and not one.accepted and not one.reset_by:
            yield {"server": one.server, "port": one.port, "count": one.syns}


def _closed(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.connections:
        if not one.accepted and one.reset_by == "server":
            yield {"server": one.server, "port": one.port}


def _dns_failing(machine: Machine, _: Capture) -> Iterator[Values]:
    codes = {2: "the name server fails", 3: "no such name", 5: "refused"}  # RFC 1035 section 4.1.1
    for one in machine.lookups:
        if one.answered and one.code:
            yield {"name": one.name, "text": codes.get(one.code, f"code {one.code}")}


def _dns_silent(machine: Machine, capture: Capture) -> Iterator[Values]:
    told = {one.name for one in machine.lookups if one.answered}
    for one in machine.lookups:
        if not one.answered and one.name not in told and waited(capture, one.at):
            yield {"name": one.name}


_SERVICES = {67: "a DHCP server", 69: "a TFTP server", 4011: "a boot server", 53: "a name server", 514: "a log server"}


def _port_closed(machine: Machine, _: Capture) -> Iterator[Values]:
    for _at, source, problem in machine.problems:
        if (problem.type, problem.code) == (icmp.UNREACHABLE4, icmp.PORT4) and source not in machine.addresses:
            size = (problem.quote[0] & 15) * 4 if problem.quote else 0
            port = int.from_bytes(problem.quote[size + 2 : size + 4], "big")
            if port in _SERVICES:
                yield {"server": source, "port": port, "service": _SERVICES[port]}


def _no_route(machine: Machine, _: Capture) -> Iterator[Values]:
    for _at, source, problem in machine.problems:
        if (problem.type == icmp.UNREACHABLE4 and problem.code in (0, 1, 6, 7)) and (
            len(problem.quote) >= 20 and source not in machine.addresses
        ):
            yield {"router": source, "destination": ip.v4_text(problem.quote[16:20])}


def _prohibited(machine: Machine, _: Capture) -> Iterator[Values]:
    for _at, source, problem in machine.problems:
        if (problem.type == icmp.UNREACHABLE4 and problem.code in (9, 10, 13)) and (
            len(problem.quote) >= 20 and source not in machine.addresses
        ):
            ports = problem.quote[(problem.quote[0] & 15) * 4 :][:4]
            kind = {6: "TCP", 17: "UDP"}.get(problem.quote[9], "")
            port = f", {kind} port {int.from_bytes(ports[2:], 'big')}" if kind and len(ports) == 4 else ""
            yield {"router": source, "destination": ip.v4_text(problem.quote[16:20]), "port": port}


def _needs_fragmenting(machine: Machine, _: Capture) -> Iterator[Values]:
    for _at, source, problem in machine.problems:
        if (problem.type, problem.code) == (icmp.UNREACHABLE4, icmp.FRAGMENT_NEEDED4):
            mtu = problem.value & 0xFFFF
            yield {"router": source, "mtu": f" (at most {mtu} octets)" if mtu else ""}


def _no_router(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.of(dhcp4.ACK, client=False):
        mask, own = one.message.option(dhcp4.SUBNET_MASK), one.message.yiaddr
        boot = one.message.siaddr if one.message.boot_file else NOWHERE
        proxy = next((offer.message.siaddr for offer in proxies(machine)), NOWHERE)
        for server in (boot, proxy):
            if not mask or len(mask) != 4 or NOWHERE in (own, server) or one.message.option(dhcp4.ROUTER):
                continue
            if _masked(own, mask) != _masked(server, mask):
                yield {"server": server}
                return


def _masked(address: str, mask: bytes) -> int:
    try:
        return int.from_bytes(ip.v4_octets(address), "big") & int.from_bytes(mask, "big")
    except WireError:
        return 0


def _arp_silent(machine: Machine, capture: Capture) -> Iterator[Values]:
    for address, count in machine.arp_asked.items():
        if (count >= 3 and address not in capture.arp_answered and address not in machine.addresses) and (
            address not in capture.owners
        ):
            yield {"address": address, "count": count}


# --- the network ------------------------------------------------------------------------------------------------


def _duplicate(capture: Capture) -> Iterator[Values]:
    for address, macs in capture.owners.items():
        if len(macs) > 1:
            yield {"address": address, "macs": " and ".join(sorted(macs))}


def _declined(machine: Machine, capture: Capture) -> Iterator[Values]:
    for one in machine.of(dhcp4.DECLINE, client=True):
        address = dhcp4.address(one.message.option(dhcp4.REQUESTED_ADDRESS)) or one.message.ciaddr
        if len(capture.owners.get(address, {})) < 2 and not _at_once(machine, one):
            yield {"address": address, "macs": f"somebody else: {machine.mac} declined it"}


def _at_once(machine: Machine, declined: Said) -> bool:
    """It was declined before anybody could have been asked for it: probing takes a second (RFC 5227 section 2.1.1)."""
    given = [one.at for one in machine.of(dhcp4.ACK, client=False) if one.at <= declined.at]
    return bool(given) and declined.at - given[-1] < SECOND // 5


def _refused6(machine: Machine, _: Capture) -> Iterator[Values]:
    """Not where an address came in the end: one server of several may have none."""
    answers = [one for one in machine.said6 if not one.from_client]
    refused = [(one, why) for one in answers if (why := story6.refusal(one.message))]
    if refused and machine.boots and not _addressed6(machine):
        one, why = refused[-1]
        yield {"server": one.source, "why": why, "count": len(refused)}


def _addressed6(machine: Machine) -> Said6 | None:
    """The last REPLY, if it holds an address and no refusal: what a boot over IPv6 begins with."""
    replies = [one for one in machine.said6 if one.message.kind == dhcp6.REPLY]
    good = replies and story6.addresses(replies[-1].message) and not story6.refusal(replies[-1].message)
    return replies[-1] if good else None


def _no_file6(machine: Machine, _: Capture) -> Iterator[Values]:
    given = _addressed6(machine)
    offered = any(one.message.option(dhcp6.BOOT_URL) for one in machine.said6 if not one.from_client)
    if given is not None and machine.boots and not offered and not machine.transfers and not machine.exchanges:
        yield {"server": given.source}


def _own_refusal(machine: Machine, _: Capture) -> Iterator[Values]:
    for one in machine.of(dhcp4.DECLINE, client=True):
        if _at_once(machine, one):
            address = dhcp4.address(one.message.option(dhcp4.REQUESTED_ADDRESS)) or one.message.ciaddr
            why = printable(one.message.option(dhcp4.MESSAGE) or b"no reason given", 120)
            yield {"address": address, "why": why}


def _cut(capture: Capture) -> Iterator[Values]:
    if capture.cut:
        yield {"count": capture.cut}


def _damage(capture: Capture) -> Iterator[Values]:
    if capture.damage:
        yield {"why": capture.damage}


def _bad_dhcp(capture: Capture) -> Iterator[Values]:
    if capture.bad_dhcp:
        _, server, why = capture.bad_dhcp[0]
        yield {"count": len(capture.bad_dhcp), "server": server, "why": why}


Look = Callable[[Machine, Capture], Iterator[Values]]

SIGNATURES: tuple[tuple[str, Look], ...] = (
    ("nothing-answers", _nothing_answers), ("no-boot-server", _no_boot_server), ("no-dhcp-server", _no_dhcp_server),
    ("second-server", _second_server), ("vendor-class-alone", _vendor_class_alone),
    ("offers-ignored", _offers_ignored), ("proxy-ignored", _proxy_ignored), ("proxy-late", _proxy_late),
    ("bad-offer", _bad_offer), ("offer-without-mask", _without_mask), ("offer-without-server", _without_server),
    ("menu-broken", _menu_broken), ("pxe-unanswered", _pxe_unanswered), ("pxe-answer-lost", _pxe_answer_lost),
    ("pxe-wrong-port", _pxe_wrong_port), ("relay-drops", _relay_drops), ("relay-not-to-us", _relay_not_to_us),
    ("lease-refused", _lease_refused), ("duplicate-address", _declined), ("address-declined", _own_refusal),
    ("ipv6-refused", _refused6), ("ipv6-no-file", _no_file6),
    ("dhcp-file-wins", _file_wins),
    ("no-next-server", _no_next_server), ("ipxe-without-features", _without_features), ("no-uri", _no_uri),
    ("answer-too-big", _too_big), ("arch-disagrees", _disagrees),
    ("file-missing", _tftp_error(1)), ("file-forbidden", _tftp_error(2)), ("tftp-server-error", _tftp_error()),
    ("script-missing", _missing("script")), ("kernel-missing", _missing("kernel")),
    ("initrd-missing", _missing("initrd")), ("name-garbage", _garbage), ("tftp-replies-lost", _replies_lost),
    ("tftp-not-heard", _not_heard), ("big-blocks-lost", _big_blocks), ("fragments-lost", _fragments),
    ("ack-storm", _storm), ("tftp-broke-off", _broke_off), ("block-wrap", _wrapped), ("tsize-missing", _no_tsize),
    ("options-exceeded", _exceeded), ("tftp-client-refused", _client_refused), ("size-probe", _probe),
    ("loader-too-big", _too_big_loader), ("kernel-refused", _kernel_again),
    ("loader-loop", _loop), ("wrong-architecture", _architecture), ("loader-refused", _refused),
    ("shim-refused", _shim), ("http-missing", _http(_plainly_missing)),
    ("http-error", _http(lambda one: one.status >= 500)),
    ("http-redirect", _http(lambda one: 300 <= one.status < 400 and _by_uefi(one))),
    ("http-wrong-type", _wrong_type),
    ("http-no-length", _http(lambda one: one.status == 200 and one.length < 0 and _by_uefi(one))),
    ("http-broke-off", _http_cut), ("http-damaged", _damaged), ("http-blocked", _blocked), ("http-refused", _closed),
    ("dns-failing", _dns_failing), ("dns-unanswered", _dns_silent), ("port-closed", _port_closed),
    ("no-route", _no_route), ("prohibited", _prohibited), ("needs-fragmenting", _needs_fragmenting),
    ("no-router", _no_router), ("arp-unanswered", _arp_silent),
)  # fmt: skip
"""(cause, what shows it), for machines that netboot."""

OF_ALL: tuple[tuple[str, Callable[[Capture], Iterator[Values]]], ...] = (
    ("duplicate-address", _duplicate), ("bad-dhcp", _bad_dhcp), ("capture-damaged", _damage), ("capture-cut", _cut),
)  # fmt: skip
"""The same for the capture as a whole."""
