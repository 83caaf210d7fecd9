"""UEFI PXE over IPv4 as EDK2 does it: OVMF, AAVMF and most vendors' firmware.

Sources: edk2 NetworkPkg/UefiPxeBcDxe (PxeBcDhcp4.c, PxeBcBoot.c, PxeBcMtftp.c), NetworkPkg/Dhcp4Dxe (Dhcp4Io.c,
Dhcp4Option.c), NetworkPkg/Mtftp4Dxe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.engine import S
from bootwire.engine import dhcp_client as dhcp
from bootwire.policy import offers
from bootwire.preboot.personas import chain, pxe
from bootwire.preboot.personas.steps import (
    Fetched,
    Machine,
    NotFetched,
    Outcome,
    Persona,
    Steps,
    Stopped,
    TftpGet,
    agreed,
    fetch,
    inquire,
    lease,
    show,
)
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message, Options

DISCOVER_WAITS = (4 * S, 8 * S, 16 * S, 32 * S)  # mPxeDhcpTimeout, PxeBcDhcp4.c
BINL_WAITS = (1 * S, 2 * S, 3 * S, 4 * S)  # PxeBcDhcp4Discover: the how-manieth try, in seconds
TFTP_WAITS = (4 * S,) * 6  # PXEBC_MTFTP_TIMEOUT, PXEBC_MTFTP_RETRIES, PxeBcImpl.h
LARGEST = 1472  # octets of a message: what one Ethernet frame holds (DHCP4_MAX_MSG)
BOOT_PORT = 4011

REQUESTED = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687")
"""Option 55: PxeBcBuildDhcp4Options asks for 35 codes."""


@dataclass(frozen=True, slots=True)
class Build:
    """One firmware.

    arch    option 93: 6, 7, 10, 11, 27, 39 …
    undi    three octets of option 94, the last two also in option 60
    window  PcdPxeTftpWindowSize; 1 for firmware from before 2019
    block   octets of a TFTP block: what the MTU leaves
    blind_to_proxy   firmware from about 2014 that never puts a ProxyDHCP offer and a DHCP offer together
    loses_pxe10      a PxeBcCacheDhcp4Offer that keeps a ProxyPxe10 offer only if it has one already, so never: proxies
                     that go without port 4011 do not exist for it
    """

    arch: int = 7
    undi: tuple[int, int, int] = (1, 3, 0)
    window: int = 4
    block: int = 1468
    blind_to_proxy: bool = False
    loses_pxe10: bool = False

    @property
    def vendor_class(self) -> bytes:
        return b"PXEClient:Arch:%05d:UNDI:%03d%03d" % (self.arch, self.undi[1], self.undi[2])


def boot(machine: Machine, build: Build | None = None) -> Persona:
    """From ">>Start PXE over IPv4" to the loader, and on as the loader goes on."""
    build = build or Build()
    yield from show(">>Start PXE over IPv4.")
    rules = dhcp.Rules(
        options=lambda ask: options(machine, build, ask),
        choose=lambda heard, _: select([one for one in heard if not _lost(build, one)]),
        discover=DISCOVER_WAITS,
        request=DISCOVER_WAITS,
        eager=False,
        flags=dhcp4.BROADCAST,
        on_nak="fail",
        restarts=0,
    )
    leased = yield from lease(machine, dhcp.Client(rules, machine.mac, machine.xid), refuses)
    if isinstance(leased, dhcp.Failed):
        return _failed(leased)
    yield from show(f"  Station IP address is {leased.address}")
    offer, proxy = leased.choice.offer, leased.choice.proxy
    if offer.message.option(dhcp4.SUBNET_MASK) is None:
        return Stopped("PXE-E21", "Remote boot cancelled.")  # Dhcp4Impl.c: no mask, EFI_ABORTED
    sort, last = offers.kind((proxy or offer).message), proxy or leased.ack
    if sort.endswith("Binl"):
        answered = None
        for asked in (last, *leased.choice.others):
            answered = answered or (yield from _binl(machine, build, asked))
        if answered is None:
            return Stopped("PXE-E16", "No valid offer received.")
        sort, last = offers.kind(answered.message), answered
    if sort.endswith("Pxe10") and not offers.boots_directly(last.message):
        discovered = yield from _menu(machine, build, last)
        if isinstance(discovered, Stopped):
            return discovered
        last = discovered
    return (yield from _load(machine, build, last.message, leased.ack.message))


# --- offers -----------------------------------------------------------------------------------------------------


def options(machine: Machine, build: Build, ask: dhcp.Ask) -> Options:
    """In the order of PxeBcBuildDhcp4Options; server and address come in as Dhcp4Dxe inserts them after 53."""
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        *agreed(ask),
        # Dhcp4Dxe says 0xff00; PxeBcDhcp4CallBack replaces that, but is not asked before a REQUEST.
        (dhcp4.MAX_SIZE, b"\xff\0" if ask.kind == dhcp4.REQUEST_LEASE else LARGEST.to_bytes(2, "big")),
        (dhcp4.REQUEST_LIST, REQUESTED),
        (dhcp4.MACHINE_ID, b"\0" + (machine.uuid or bytes(16))),
        (dhcp4.NIC_INTERFACE, bytes(build.undi)),
        (dhcp4.ARCHITECTURE, build.arch.to_bytes(2, "big")),
        (dhcp4.VENDOR_CLASS, build.vendor_class),
    )


def refuses(data: bytes) -> str:
    """Why the firmware silently drops a message (DhcpValidateOptions, Dhcp4Option.c; DhcpInput, Dhcp4Impl.c)."""
    if len(data) > LARGEST:
        return f"{len(data)} octets, {LARGEST} at most"
    at = 240
    while at < len(data):
        code = data[at]
        if code == dhcp4.END:
            return ""
        if code == dhcp4.PAD:
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        if size == 0 or at + 2 + size > len(data):
            return f"option {code} of length {size}"
        if code in _MULTIPLES and size % _MULTIPLES[code]:
            return f"option {code} of length {size}"
        at += 2 + size
    return "no END option"


_MULTIPLES = {1: 4, 3: 4, 6: 4, 13: 2, 42: 4, 50: 4, 51: 4, 53: 1, 54: 4, 58: 4, 59: 4}


def select(heard: Sequence[dhcp.Heard]) -> dhcp.Choice | None:
    """The first kind of offer, or pair of offers, in offers.ORDER; within a kind, the first that came.

    A DhcpOnly offer alone will do only with a boot file; an offer without option 54 cannot be requested. Where a DHCP
    server claims to be PXE itself (DhcpBinl), proxies count for nothing unless another server's offer is DhcpOnly.
    """
    by_kind: dict[str, list[dhcp.Heard]] = {}
    for one in heard:
        sort = offers.kind(one.message)
        if one.port == dhcp4.SERVER_PORT and (sort == "Bootp" or one.message.option(dhcp4.SERVER_ID)):
            by_kind.setdefault(sort, []).append(one)
    for own, proxy in offers.ORDER:
        leases, proxies = by_kind.get(own, []), by_kind.get(proxy, [])
        if (own, proxy) == ("DhcpOnly", ""):
            leases = [one for one in leases if one.message.boot_file]
        if not leases or (proxy and not proxies):
            continue
        return dhcp.Choice(leases[0], proxies[0], tuple(proxies[1:])) if proxy else dhcp.Choice(leases[0])
    return None


def _lost(build: Build, heard: dhcp.Heard) -> bool:
    """Offers that a firmware with a defect does not see (edk2 issue 6944)."""
    sort = offers.kind(heard.message)
    return (build.blind_to_proxy and sort.startswith("Proxy")) or (build.loses_pxe10 and sort == "ProxyPxe10")


def _failed(failed: dhcp.Failed) -> Stopped:
    if failed.stage == "nak":
        return Stopped("PXE-E07", "Network device error.")
    if failed.heard and failed.stage == "discover":
        return Stopped("PXE-E16", "No valid offer received.")
    return Stopped("PXE-E18", "Server response timeout.")


# --- boot servers -----------------------------------------------------------------------------------------------


def _binl(machine: Machine, build: Build, offer: dhcp.Heard) -> Steps[dhcp.Heard | None]:
    """PxeBcRetryBinlOffer: a REQUEST to whoever sent the offer, from 4011 to 4011."""
    message = offer.message
    to = message.siaddr if message.siaddr != dhcp.ANY else offer.server
    xid = machine.xid()
    carried = _asked(machine, build)

    def accepts(heard: dhcp.Heard) -> bool:
        return bool(heard.message.boot_file) or bool(offers.tags(heard.message) & {6, 7, 8, 9, 10})

    inquiry = dhcp.Inquiry(
        lambda count: dhcp.request(machine.mac, xid, carried, secs=count, ciaddr=machine.address),
        to, port=BOOT_PORT, waits=BINL_WAITS, accepts=accepts, patient=True,
    )  # fmt: skip
    return (yield from inquire(machine, inquiry, BOOT_PORT, refuses))


def _asked(machine: Machine, build: Build) -> Options:
    """What a DISCOVER carries, by ascending code: neither an address nor a server."""
    carried = dict(options(machine, build, dhcp.Ask(dhcp4.DISCOVER, 0, 0)))
    return tuple(sorted((carried | {dhcp4.MESSAGE_TYPE: bytes((dhcp4.REQUEST_LEASE,))}).items()))


def _menu(machine: Machine, build: Build, offer: dhcp.Heard) -> Steps[dhcp.Heard | Stopped]:
    """PxeBcSelectBootPrompt and PxeBcSelectBootMenu with nobody at the keyboard, then EfiPxeBcDiscover."""
    vendor = offers.vendor(offer.message)
    if vendor.prompt is not None:
        yield from show(vendor.prompt[1].decode("ascii", "replace"))
    item = vendor.menu[0][0] if vendor.menu else 0
    if item == 0:
        return Stopped("PXE-E21", "Remote boot cancelled.")
    ways = pxe.asks_for_item(vendor, item, multicast_first=True)
    if not ways:
        return Stopped("PXE-E16", "No valid offer received.")
    # Walking the list of a type does not stop at the first: the last address is the one that is asked.
    address, port = ways[-1]
    ours = dhcp4.CLIENT_PORT if port == dhcp4.SERVER_PORT else BOOT_PORT
    inquiry = pxe.item_inquiry(
        machine.mac, machine.xid(), machine.address, _asked(machine, build), item, (address, port),
        waits=BINL_WAITS, port=ours,
    )  # fmt: skip
    found = yield from inquire(machine, inquiry, ours, refuses)
    return found or Stopped("PXE-E16", "No valid offer received.")


# --- the loader -------------------------------------------------------------------------------------------------


def _load(machine: Machine, build: Build, message: Message, ack: Message) -> Steps[Outcome]:
    """PxeBcDhcp4BootInfo and PxeBcLoadBootFile."""
    vendor = offers.vendor(message)
    server = message.siaddr if message.siaddr != dhcp.ANY else dhcp4.address(message.option(dhcp4.SERVER_ID))
    if (vendor.control or 0) & dhcp4.USE_BOOT_FILE and vendor.servers and vendor.servers[0][1]:
        server = vendor.servers[0][1][0]
    name = message.boot_file
    if not name:
        return Stopped("PXE-E53", "No boot filename received.")
    shown = name.decode("utf-8", "replace")
    yield from show(f"  Server IP address is {server}")
    yield from show(f"  NBP filename is {shown}")
    size = yield from _size(machine, build, server, name, message)
    if isinstance(size, NotFetched):
        return _stopped(size)
    yield from show(f"  NBP filesize is {size} Bytes")
    yield from show(" Downloading NBP file...")
    wanted = ((b"blksize", b"%d" % build.block), *_window(build))
    got = yield from fetch(machine, TftpGet(server, name, wanted, TFTP_WAITS, limit=size))
    if isinstance(got, NotFetched):
        return _stopped(got)
    yield from show("  NBP file downloaded successfully.")
    url = f"tftp://{server}/{shown.lstrip('/')}"
    program = pxe.image(shown, url, got)
    return (yield from chain.start_efi(machine, build.arch, program, pxe.Cached(ack, message, url)))


def _size(machine: Machine, build: Build, server: str, name: bytes, message: Message) -> Steps[int | NotFetched]:
    """Option 13, in units of 512 octets, is believed; else a TFTP request that is given up after its OACK."""
    blocks = message.option(13)
    if blocks is not None and len(blocks) == 2:
        return int.from_bytes(blocks, "big") * 512
    wanted = ((b"tsize", b"0"), (b"blksize", b"%d" % build.block), *_window(build))
    got = yield from fetch(machine, TftpGet(server, name, wanted, TFTP_WAITS, probe=8))
    if isinstance(got, Fetched):
        return got.octets if got.octets >= 0 else NotFetched("options", text="no tsize in the answer")
    return got


def _window(build: Build) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"windowsize", b"%d" % build.window),) if build.window > 1 else ()


def _stopped(failure: NotFetched) -> Stopped:
    match failure.why:
        case "timeout":
            return Stopped("PXE-E18", "Server response timeout.")
        case "unreachable":
            return Stopped("PXE-E22", "Client received ICMP error from server.")
        case "error":
            return Stopped("PXE-E23", "Client received TFTP error from server.")
        case "too big":
            return Stopped("PXE-E05", "Buffer size is smaller than the requested file.")
        case _:
            return Stopped("PXE-E99", "Unexpected network error.")
