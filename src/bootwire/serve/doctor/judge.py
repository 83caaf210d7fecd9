"""What is wrong, out of all that was seen: pure, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from bootwire.observe.explain import signatures
from bootwire.observe.explain.signatures import Finding
from bootwire.serve.doctor import network, programs
from bootwire.serve.doctor.causes import SEVERITIES, Told, told
from bootwire.serve.doctor.seen import Clock, Echoes, Fetch, Report, Resolved, Six, Trial, Web

HOST = "plain host"
"""Who saw what no firmware was needed for."""

SLOW = 1 << 20  # octets a second: a kernel with its initrd takes minutes then
_LEAST = 4 << 20  # octets: below that, a rate says little

_OPEN_TFTP = (
    "Let UDP port 69 and the high ports that it answers from through every firewall between (they come from a new port)"
)
_SAYS_NO = "a firewall between says that it is prohibited (ICMP)"

Found = tuple[Finding, tuple[str, ...]]


def findings(report: Report) -> list[Found]:
    """Each with the firmware it was seen with, the worst first."""
    seen: dict[tuple[str, str], tuple[Finding, list[str]]] = {}
    for trial in report.trials:
        for one in signatures.findings(trial.capture):
            if one.machine not in ("", trial.mac):
                continue  # somebody else's boot, of which a card hears only what is for all
            seen.setdefault((one.cause, one.because), (one, []))[1].append(trial.firmware)
        for each in programs.findings(trial):
            _add(seen, each, trial.firmware)
    for each in _of_host(report):
        _add(seen, each, HOST)
    told_of = {name for one, names in seen.values() if one.severity == "error" for name in names}
    for trial in report.trials:
        if not (trial.well or trial.firmware in told_of):
            _add(seen, _unexplained(trial), trial.firmware)
    found = [(one, tuple(dict.fromkeys(names))) for one, names in seen.values()]
    return sorted(found, key=lambda pair: SEVERITIES.index(pair[0].severity))


def _add(seen: dict[tuple[str, str], tuple[Finding, list[str]]], each: Told, who: str) -> None:
    """A cause that is known already, and is the same by its marks, is only seen once more."""
    one = each.finding
    for key, (known, names) in seen.items():
        cause, because = key
        if cause == one.cause and each.marks and all(mark in because for mark in each.marks):
            names.append(who)
            graver = SEVERITIES.index(one.severity) < SEVERITIES.index(known.severity)
            seen[key] = (one if graver else known, names)
            return
    seen.setdefault((one.cause, one.because), (one, []))[1].append(who)


def _unexplained(trial: Trial) -> Told:
    screen = "; ".join(line for line in trial.screen[-3:] if line.strip())
    return told("did-not-boot", ends=trial.ends, screen=screen)


def _of_host(report: Report) -> Iterator[Told]:
    if report.host_trouble:
        yield told("no-address-for-hosts", trouble=report.host_trouble)
    for server in dict.fromkeys(one.server for one in report.tftp):
        yield from of_tftp([one for one in report.tftp if one.server == server])
    for one in report.web:
        yield from of_web(one)
    for address, macs in report.conflicts.items():
        others = " and ".join(macs)
        yield told("duplicate-address", address, address=address, macs=f"{others}, and was given to a machine here")
    yield from _of_paths(report)
    yield from of_servers(network.offers(report))
    yield from of_names(report.names)
    for clock in report.clocks:
        yield from of_clock(clock)
    if report.six is not None:
        yield from of_six(report.six, report.host is not None or any(one.offers for one in report.trials))


def of_servers(offers: Sequence[network.Offer]) -> Iterator[Told]:
    """Several DHCP servers are right where they say the same."""
    given = [one for one in offers if one.address]
    servers = dict.fromkeys(one.server for one in given)
    if len(servers) < 2:
        return
    kinds = {"the network's mask": "mask", "the router": "router", "the boot server": "next_server"}
    what = [
        said for said, name in kinds.items()
        if len({frozenset(getattr(one, name) for one in given if one.server == server) for server in servers}) > 1
    ]  # fmt: skip
    if what:
        yield told("second-dhcp-server", count=len(servers), what=" and ".join(what), servers=", ".join(servers))


def of_names(found: Sequence[Resolved]) -> Iterator[Told]:
    """What name servers say of the names in boot URLs; "localhost" is asked for only to see whether they live."""
    needed = list(dict.fromkeys(one.name for one in found if one.name != "localhost"))
    for server in dict.fromkeys(one.server for one in found if one.why == "silent"):
        ident = "dns-server-needed" if needed else "dns-server-silent"
        yield told(ident, server=server, names=", ".join(needed))
    for name in needed:
        mine = [one for one in found if one.name == name and one.why != "silent"]
        for one in mine:
            if one.why:
                yield told("dns-failing", name, name=name, text=f"{one.server} says: {one.why}")
        if len({one.addresses for one in mine}) > 1:
            answers = "; ".join(f"{one.server} says {', '.join(one.addresses) or one.why}" for one in mine)
            yield told("dns-differs", name=name, answers=answers)


SKEW = 60.0
"""Seconds that clocks may differ: below that, no certificate or signed address is known to fail."""


def of_clock(one: Clock) -> Iterator[Told]:
    """Against ours."""
    if one.offset is None:
        yield told("time-server-silent", server=one.server, kind=one.kind)
    elif abs(one.offset) > SKEW:
        direction = "ahead of" if one.offset > 0 else "behind"
        yield told("clock-skew", server=one.server, kind=one.kind, offset=duration(one.offset), direction=direction)


def duration(seconds: float) -> str:
    """For people: "90 s", "26 min", "3.5 h", "12 days"."""
    size = abs(seconds)
    if size < 120:
        return f"{size:.0f} s"
    if size < 7200:
        return f"{size / 60:.0f} min"
    return f"{size / 3600:.1f} h" if size < 172_800 else f"{size / 86_400:.0f} days"


def of_six(six: Six, four: bool) -> Iterator[Told]:
    """four: IPv4 is here, too."""
    if not (six.routers or six.answered):
        if four:
            yield told("ipv4-only")
        return
    if not four:
        yield told("ipv6-only")
    if six.answered and not six.routers:
        yield told("ipv6-no-router")
    if six.boot_trouble:
        yield told("ipv6-boot-fails", url=six.boot_url, trouble=six.boot_trouble)
    elif not six.boot_url:
        who = "a router advertises itself" if six.routers else "a DHCPv6 server answers"
        yield told("ipv6-no-boot", who=who)


SLOW_TRIP = {"boot server": 0.025, "DHCP server": 0.2, "router": 0.1}
"""Seconds of a round trip that are too many: a loader of 1 MiB takes 18 s then; offers come late; all comes late."""

_LOST = 2  # echoes: one may happen


def _of_paths(report: Report) -> Iterator[Told]:
    for relay, through, ports in network.relayed(report):
        port = f", which places the machine at {' or '.join(ports)}" if ports else ""
        ident = "behind-relay" if relay else "behind-snooping-switch"
        yield told(ident, relay=relay, servers=", ".join(through), port=port)
    servers = network.boot_servers(report)
    for one in report.echoes:
        yield from _of_echoes(one, report, servers)
    for way in report.mtus:
        if 0 < way.passes < way.ours:
            by = f" ({way.by} says that more does not fit)" if way.by else ""
            roles = _roles(report, way.address)
            block = way.passes - 32
            yield told(
                "small-mtu", address=way.address, passes=way.passes, ours=way.ours, by=by, roles=roles, block=block
            )
    if report.mtus and report.mtus[0].ours < 1500:
        yield told("mtu-of-card", ours=report.mtus[0].ours)


def _of_echoes(one: Echoes, report: Report, servers: Mapping[str, None]) -> Iterator[Told]:
    values: dict[str, object] = {"address": one.address, "roles": ", ".join(one.roles)}
    if one.times:
        limit = min((SLOW_TRIP[role] for role in one.roles if role in SLOW_TRIP), default=0.2)
        if one.median > limit:
            least, median, most = (f"{seconds * 1000:.0f}" for seconds in (one.times[0], one.median, one.times[-1]))
            seconds = f"{one.median * (1 << 20) / 1468:.0f}"
            yield told("slow-network", least=least, median=median, most=most, seconds=seconds, **values)
        lost = one.sent - len(one.times)
        if lost >= _LOST:
            yield told("packet-loss", lost=lost, sent=one.sent, share=f"{one.loss * 100:.0f}", **values)
        return
    if one.why.startswith("no route"):
        host = report.host.address if report.host is not None else ""
        yield told("no-router", one.address, server=one.address, roles=values["roles"], address=host)
    elif "no answer on the link" in one.why and not network.elsewhere(report, one.address):
        if "router" in one.roles:
            beyond = [server for server in servers if network.router_to(report, server) == one.address]
            text = f", {', '.join(beyond)} among it" if beyond else ""
            yield told("router-dead", router=one.address, beyond=text)
        if one.roles != ("router",):
            yield told("server-dead", **values)
    elif one.by:
        if "prohibited" in one.why or "(code 13)" in one.why:
            return  # echoes only, maybe: what matters is tried itself
        yield told(
            "no-route",
            one.by,
            one.address,
            router=one.by,
            destination=one.address,
            because=one.why,
            roles=values["roles"],
        )


def _roles(report: Report, address: str) -> str:
    return next((", ".join(one.roles) for one in report.echoes if one.address == address), "boot server")


def of_tftp(mine: Sequence[Fetch]) -> Iterator[Told]:
    """mine: one server's transfers, the smallest first."""
    small, *others = mine
    values = {"server": small.server, "name": small.name}
    match small.why:
        case "":
            pass
        case "no service":
            yield told("tftp-no-service", **values)
        case "prohibited":
            do = f"{_OPEN_TFTP}."
            yield told("tftp-blocked", trouble=_SAYS_NO, do=do, **values)
        case "silent":
            do = f"{_OPEN_TFTP}. On the server: is its firewall open, and does the TFTP service run?"
            trouble = "no answer, not even that nothing listens there: a firewall drops it, or the server is off"
            yield told("tftp-blocked", trouble=trouble, do=do, **values)
        case "unreachable":
            do = f"Look at router and mask that DHCP gives, and whether {small.server} is switched on."
            yield told("tftp-blocked", trouble=small.trouble, do=do, **values)
        case "forbidden":
            yield told("file-forbidden", small.server, text=small.trouble.removeprefix("error "), **values)
        case "error":
            yield told("file-missing", small.server, text=small.trouble.removeprefix("error "), **values)
        case _:
            yield told("tftp-broken", trouble=small.trouble, **values)
    if small.why:
        return
    blocks = [one for one in others if one.why and one.window == 1]
    if blocks:
        ident = "tftp-large-blocks" if blocks[0].block <= 1468 else "tftp-large-blocks-fragments"
        yield told(ident, server=small.server, size=blocks[0].block, trouble=blocks[0].trouble)
    windows = [one for one in others if one.why and one.window > 1]
    if windows and len(windows) == sum(one.window > 1 for one in others) and not any(b.block <= 1468 for b in blocks):
        yield told("tftp-windows", server=small.server, size=windows[0].window, trouble=windows[0].trouble)


_MISSING = {"kernel": "kernel-missing", "initrd": "initrd-missing", "script": "script-missing"}


def of_web(one: Web) -> Iterator[Told]:
    """What is wrong with one URL."""
    path = urlsplit(one.url).path or "/"
    values = {"server": one.server or urlsplit(one.url).hostname or "", "name": one.url, "port": one.port}
    where = (one.server, str(one.port))
    match one.why:
        case "refused":
            yield told("http-refused", *where, **values)
        case "prohibited":
            do = f"Let TCP port {one.port} through the firewall, on {one.server} and between."
            yield told("http-blocked", trouble=_SAYS_NO, do=do, **values)
        case "silent":
            do = f"Let TCP port {one.port} through the firewall; look whether the HTTP server's machine runs."
            trouble = "no answer, neither yes nor no: a firewall drops it, or the server is off"
            yield told("http-blocked", *where, trouble=trouble, do=do, **values)
        case "unreachable":
            yield told("http-unreachable", trouble=one.trouble, **values)
        case "name":
            yield told("dns-failing", one.url, text=one.trouble, name=urlsplit(one.url).hostname or one.url)
        case "status" if one.had and one.status in (401, 403, 404, 410):
            yield told("http-for-the-machine", text=one.trouble, **values)
        case "status" if one.status in (401, 403, 404, 410):
            yield told(_MISSING.get(one.role, "http-missing"), one.server, path, text=one.trouble, **values)
        case "status":
            yield told("http-error", one.server, path, text=one.trouble, **values)
        case "short" | "stalled":
            length = f"{one.length:,}" if one.length >= 0 else "unknown"
            trouble = "the server hung up" if one.why == "short" else "no octet came for seconds"
            octets = f"{one.octets:,}"
            yield told("http-broke-off", path, octets=octets, length=length, trouble=trouble, **values)
        case "broken":
            yield told("http-damaged", one.server, path, text=one.trouble, **values)
        case _:
            yield from _of_good(one, values)


def _of_good(one: Web, values: dict[str, object]) -> Iterator[Told]:
    if one.length < 0 and one.role in ("kernel", "initrd", "loader"):
        yield told("http-no-length", one.server, **values)
    if one.ranges is False and one.octets >= _LEAST:
        yield told("http-no-ranges", **values)
    if one.octets >= _LEAST and one.octets / one.seconds < SLOW:
        rate = f"{one.octets / one.seconds / 1e6:.2f}"
        yield told("http-slow", rate=rate, octets=f"{one.octets:,}", seconds=f"{one.seconds:.1f}", **values)
