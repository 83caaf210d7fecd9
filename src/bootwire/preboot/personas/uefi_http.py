"""UEFI HTTP Boot over IPv4 as EDK2 does it (edk2 NetworkPkg/HttpBootDxe: HttpBootDhcp4.c, HttpBootClient.c)."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.engine import Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas import chain, edk2, pxe
from bootwire.preboot.personas.steps import (
    Fetched,
    HttpGet,
    Machine,
    NotFetched,
    Outcome,
    Persona,
    Started,
    Steps,
    Stopped,
    agreed,
    fetch,
    lease,
    pause,
    show,
)
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message, Options
from bootwire.wire.ip import v4_octets
from bootwire.wire.reader import WireError

IDLE: Ns = 5 * S  # PcdHttpIoTimeout, NetworkPkg.dec
TRIES, PAUSE = 5, 2 * S  # of a download that broke

REQUESTED = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c004361")
"""Option 55: 27 codes, of which HttpBootBuildDhcp4Options forgets to set the 25th; here it is 0."""

PROGRAM_TYPES = {"application/efi": "efi", "application/vnd.efi-iso": "iso", "application/vnd.efi-img": "img"}
"""UEFI 2.10 section 24.7.1.2; compared octet for octet, a parameter spoils it."""

LOADER_ARCHES = {15: 6, 16: 7, 18: 10, 19: 11, 26: 25, 28: 27, 38: 37, 40: 39}
"""Option 93 of what this firmware starts, which knows no "booted over HTTP" (iPXE sends the plain number)."""


@dataclass(frozen=True, slots=True)
class Build:
    """One firmware. allows_http: PcdAllowHttpConnections; many vendors ship it off, behind a switch in the setup."""

    arch: int = 16
    undi: tuple[int, int, int] = (1, 3, 0)
    allows_http: bool = True

    @property
    def vendor_class(self) -> bytes:
        return b"HTTPClient:Arch:%05d:UNDI:%03d%03d" % (self.arch, self.undi[1], self.undi[2])


def boot(machine: Machine, build: Build | None = None) -> Persona:
    """From ">>Start HTTP Boot over IPv4" to the program, and on as it goes on."""
    build = build or Build()
    yield from show(">>Start HTTP Boot over IPv4.....")
    rules = dhcp.Rules(
        options=lambda ask: options(machine, build, ask),
        choose=lambda heard, _: select(heard),
        discover=edk2.DISCOVER_WAITS,
        request=edk2.DISCOVER_WAITS,
        eager=False,
        flags=dhcp4.BROADCAST,
        on_nak="fail",
        restarts=0,
    )
    leased = yield from lease(machine, dhcp.Client(rules, machine.mac, machine.xid), edk2.refuses)
    if isinstance(leased, dhcp.Failed):
        return Stopped("", "Error: Server response timeout.")
    yield from show(f"  Station IP address is {leased.address}")
    source = leased.choice.proxy or leased.choice.offer
    uri = source.message.boot_file.decode("utf-8", "replace")
    yield from show(f"  URI: {uri}")
    trouble = _trouble(build, uri)
    if trouble:
        return Stopped("", trouble)
    return (yield from _load(machine, build, uri, leased.ack.message, source.message))


def options(machine: Machine, build: Build, ask: dhcp.Ask) -> Options:
    """In the order of HttpBootBuildDhcp4Options, after what Dhcp4Dxe puts first."""
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        *agreed(ask),
        (dhcp4.MAX_SIZE, edk2.LARGEST.to_bytes(2, "big")),
        (dhcp4.REQUEST_LIST, REQUESTED),
        (dhcp4.MACHINE_ID, b"\0" + (machine.uuid or bytes(16))),
        (dhcp4.NIC_INTERFACE, bytes(build.undi)),
        (dhcp4.ARCHITECTURE, build.arch.to_bytes(2, "big")),
        (dhcp4.VENDOR_CLASS, build.vendor_class),
    )


# --- offers -----------------------------------------------------------------------------------------------------


def kind(message: Message) -> str:
    """The class of an offer as HttpBootParseDhcp4Packet finds it; "" for one it drops.

    Nine octets are compared: "HTTPClien" would do.
    """
    proxied = message.yiaddr.startswith("0.")
    dns = "Dns" if message.option(dhcp4.DNS) else ""
    if not (message.option(dhcp4.VENDOR_CLASS) or b"").startswith(b"HTTPClien"):
        return "" if proxied else f"Dhcp{dns or 'Only'}"
    try:
        parts = urllib.parse.urlsplit(message.boot_file.decode("latin-1"))
    except ValueError:  # "http://[::/"
        return ""
    if not parts.scheme or not parts.netloc:
        return ""
    host = "IpUri" if _literal(parts.hostname or "") else "NameUri"
    return f"Proxy{host}" if proxied else f"Dhcp{host}{dns}"


ORDER = (  # HttpBootSelectDhcpOffer, for a boot option without a URI of its own
    ("DhcpIpUri", ""), ("DhcpIpUriDns", ""), ("DhcpNameUriDns", ""), ("DhcpOnly", "ProxyIpUri"),
    ("DhcpDns", "ProxyIpUri"), ("DhcpDns", "ProxyNameUri"), ("DhcpDns", "DhcpNameUri"),
)  # fmt: skip


def select(heard: Sequence[dhcp.Heard]) -> dhcp.Choice | None:
    """The first offer, or pair of offers, in ORDER."""
    by_kind: dict[str, dhcp.Heard] = {}
    for one in heard:
        if one.port == dhcp4.SERVER_PORT and one.message.option(dhcp4.SERVER_ID):
            by_kind.setdefault(kind(one.message), one)
    for own, other in ORDER:
        if own in by_kind and (not other or other in by_kind):
            return dhcp.Choice(by_kind[own], by_kind[other] if other else None)
    return None


def _literal(host: str) -> bool:
    try:
        v4_octets(host)
    except WireError:
        return False
    return True


def _trouble(build: Build, uri: str) -> str:
    scheme = uri.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        return "Error: Invalid URI address."
    if scheme == "http" and not build.allows_http:
        return "Error: Access forbidden, only HTTPS connection is allowed."
    if not _literal(urllib.parse.urlsplit(uri).hostname or ""):
        return "Error: Could not retrieve the host address from DNS server."
    return ""


# --- the program ------------------------------------------------------------------------------------------------


def _load(machine: Machine, build: Build, uri: str, ack: Message, offer: Message) -> Steps[Outcome]:
    """HttpBootLoadFile: HEAD for the size and the kind, GET if that fails, then GET for the file."""
    head = yield from fetch(machine, _request(uri, "HEAD"))
    if isinstance(head, NotFetched) or not head.header("content-length"):
        head = yield from fetch(machine, _request(uri, "GET"))
    if isinstance(head, NotFetched):
        return _unreachable(head)
    if head.status >= 300:
        return Stopped("", f"Error: HTTP status {head.status}")
    size = head.header("content-length")
    if not size.isdecimal():
        return Stopped("", "Error: Could not retrieve NBP file size from HTTP server.")
    form = PROGRAM_TYPES.get(head.header("content-type")) or uri.rpartition(".")[2].lower()
    if form not in PROGRAM_TYPES.values():
        return Stopped("", "Error: the server's file is neither an EFI program nor a disk image")
    yield from show(f"  File Size: {size} Bytes")
    yield from show("  Downloading...")
    got = yield from _download(machine, uri, int(size))
    if not isinstance(got, Fetched):
        return _unreachable(got)
    program = pxe.image(uri, uri, got)
    if form != "efi":
        return Started(program)  # a RAM disk, and what its removable-media path holds
    arch = LOADER_ARCHES.get(build.arch, build.arch)
    return (yield from chain.start_efi(machine, arch, program, pxe.Cached(ack, offer, uri)))


def _download(machine: Machine, uri: str, size: int) -> Steps[Fetched | NotFetched]:
    got: Fetched | NotFetched = NotFetched("timeout")
    for number in range(TRIES):
        if number:
            machine.repeats += 1
            yield from pause(machine, PAUSE)
        got = yield from fetch(machine, _request(uri, "GET"))
        if isinstance(got, Fetched) and got.status < 300 and got.octets == size:
            return got
    return got if isinstance(got, NotFetched) else NotFetched("status", got.status)


def _request(uri: str, method: str) -> HttpGet:
    """Host is the name alone, whatever the port (HttpBootClient.c, HttpBootGetBootFile)."""
    host = urllib.parse.urlsplit(uri).hostname or ""
    headers = (("Host", host), ("Accept", "*/*"), ("User-Agent", "UefiHttpBoot/1.0"))
    return HttpGet(uri, headers, "HEAD" if method == "HEAD" else "GET", idle=IDLE)


def _unreachable(failure: NotFetched) -> Stopped:
    if failure.why == "unreachable":
        return Stopped("", "Error: TCP connection failed")
    if failure.why == "status":
        return Stopped("", f"Error: HTTP status {failure.code}")
    return Stopped("", "Error: Server response timeout.")
