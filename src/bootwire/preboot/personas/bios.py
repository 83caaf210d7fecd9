"""A BIOS PXE ROM in Intel's tradition (Boot Agent, and what Realtek, Broadcom, VMware and others made of it).

Its source is not public. From PXE 2.1 section 2.2 and the captures and error lists that vendors published; where those
leave it open, the way that most servers rely on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.engine import Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.policy import offers
from bootwire.preboot.personas import chain, pxe
from bootwire.preboot.personas.steps import (
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

DISCOVER_WAITS = (4 * S, 8 * S, 16 * S, 32 * S)  # PXE 2.1 section 2.2.1
PROXY_PATIENCE: Ns = 12 * S  # PXE 2.1 section 2.2.3: two more DISCOVERs in the hope of a proxy
PXE_WAITS = (1 * S, 2 * S, 3 * S, 4 * S)  # PXE 2.1 section 2.2.4
TFTP_WAITS = (4 * S,) * 6
BLOCK = 1456  # octets; a bigger one in the OACK is PXE-E3F
LARGEST_PROGRAM = 500 * 1024  # octets of free base memory above 0000:7C00
SIZE_PORT, READ_PORT = 2070, 2071  # seen: the size is asked from one, the file fetched from the other

REQUESTED = bytes.fromhex("010203040506 0b0c0d0f1011121617 1c28292a2b323336 3a3b3c4243 8081828384858687")
REQUESTED_OLD = bytes.fromhex("0102030506 0b0c0d0f101112 2b363c43 8081828384858687")


@dataclass(frozen=True, slots=True)
class Build:
    """One ROM.

    old         the 24-code option 55 and option 57 = 1260 of the first generation
    silent_uuid no option 97 (Intel X552/X557 of 2015)
    runs_on     takes octets behind an option 67 that has no NUL of its own along: the END option at least
    """

    old: bool = False
    silent_uuid: bool = False
    runs_on: bool = False


def boot(machine: Machine, build: Build | None = None) -> Persona:
    """From "CLIENT MAC ADDR" to the jump to 0000:7C00, and on as the loader goes on."""
    build = build or Build()
    yield from show(f"CLIENT MAC ADDR: {machine.mac_text.upper().replace(':', ' ')}")
    rules = dhcp.Rules(
        options=lambda ask: options(machine, build, ask),
        choose=choose,
        discover=DISCOVER_WAITS,
        request=DISCOVER_WAITS,
        flags=dhcp4.BROADCAST,
        secs=lambda ask: max(4, ask.elapsed // S),
        on_nak="fail",
        restarts=0,
    )
    leased = yield from lease(machine, dhcp.Client(rules, machine.mac, machine.xid))
    if isinstance(leased, dhcp.Failed):
        return _no_lease(leased)
    yield from show(f"CLIENT IP: {leased.address}  MASK: {leased.mask}  DHCP IP: {leased.server}")
    offer, proxy = leased.choice.offer, leased.choice.proxy
    source = leased.ack if proxy is None or proxy is offer else proxy
    if not offers.is_pxe(source.message):
        return (yield from _load(machine, build, source.message, leased.ack.message))
    # Option 43 that does not settle it, or nothing to load: the service on port 4011 is asked.
    if not source.message.boot_file or not (offers.tags(source.message) - {dhcp4.END}):
        answered = yield from _ask(machine, build, source)
        if answered is None:
            return Stopped("PXE-E55", "ProxyDHCP service did not reply to request on port 4011")
        source = answered
    if offers.tags(source.message) & {6, 7, 8, 9, 10} and not offers.boots_directly(source.message):
        found = yield from _menu(machine, build, source)
        if isinstance(found, Stopped):
            return found
        source = found
    return (yield from _load(machine, build, source.message, leased.ack.message))


def options(machine: Machine, build: Build, ask: dhcp.Ask) -> Options:
    """53, 55, 57, 97, 93, 94, 60, as a ROM of a laptop was seen to order them; 54 and 50 after 53 in a REQUEST."""
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        *agreed(ask),
        (dhcp4.REQUEST_LIST, REQUESTED_OLD if build.old else REQUESTED),
        (dhcp4.MAX_SIZE, (1260).to_bytes(2, "big")),
        *(() if build.silent_uuid else ((dhcp4.MACHINE_ID, b"\0" + (machine.uuid or bytes(16))),)),
        (dhcp4.ARCHITECTURE, b"\0\0"),
        (dhcp4.NIC_INTERFACE, b"\1\2\1"),
        (dhcp4.VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001"),
    )


def choose(heard: Sequence[dhcp.Heard], elapsed: Ns) -> dhcp.Choice | None:
    """A DHCP offer that is PXE itself, or one with a proxy's; without either, a plain one once no proxy can be hoped
    for any more (PXE 2.1 section 2.2.3)."""
    leases = [one for one in heard if one.message.yiaddr != dhcp.ANY and one.port == dhcp4.SERVER_PORT]
    proxies = [one for one in heard if one.message.yiaddr == dhcp.ANY and offers.is_pxe(one.message)]
    if not leases:
        return None
    if proxies:
        return dhcp.Choice(leases[0], proxies[0])
    itself = next((one for one in leases if offers.is_pxe(one.message)), None)
    if itself is not None:
        return dhcp.Choice(itself, itself)
    return dhcp.Choice(leases[0]) if elapsed >= PROXY_PATIENCE else None


def _no_lease(failed: dhcp.Failed) -> Stopped:
    if failed.stage == "discover" and any(offers.is_pxe(one.message) for one in failed.heard):
        return Stopped("PXE-E52", "proxyDHCP offers were received. No DHCP offers were received")
    if failed.stage == "discover":
        return Stopped("PXE-E51", "No DHCP or proxyDHCP offers were received")
    return Stopped("PXE-E51", "No DHCP or proxyDHCP offers were received (the request was not acknowledged)")


# --- boot servers -----------------------------------------------------------------------------------------------


def _ask(machine: Machine, build: Build, offer: dhcp.Heard) -> Steps[dhcp.Heard | None]:
    carried = options(machine, build, dhcp.Ask(dhcp4.REQUEST_LEASE, 0, 0))
    xid = machine.xid()

    def accepts(heard: dhcp.Heard) -> bool:
        return heard.message.type == dhcp4.ACK and heard.port == dhcp4.PXE_PORT

    inquiry = dhcp.Inquiry(
        lambda _: dhcp.request(machine.mac, xid, carried, ciaddr=machine.address),
        offer.server, waits=PXE_WAITS, accepts=accepts,
    )  # fmt: skip
    return (yield from inquire(machine, inquiry))


def _menu(machine: Machine, build: Build, offer: dhcp.Heard) -> Steps[dhcp.Heard | Stopped]:
    """The prompt, the menu, and Boot Server Discovery, with nobody at the keyboard: the first item."""
    vendor = offers.vendor(offer.message)
    if not vendor.menu or vendor.prompt is None:
        return Stopped("PXE-E74", "Bad or missing PXE menu and/or prompt information")
    yield from show(vendor.prompt[1].decode("ascii", "replace"))
    item = vendor.menu[0][0]
    if item == 0:
        return Stopped("PXE-M0F", "Exiting PXE ROM: the menu's default is the local disk")
    ways = pxe.asks_for_item(vendor, item, multicast_first=True)
    if not ways:
        return Stopped("PXE-E77", "Bad or missing discovery server list")
    carried = options(machine, build, dhcp.Ask(dhcp4.REQUEST_LEASE, 0, 0))
    for to in ways:
        inquiry = pxe.item_inquiry(machine.mac, machine.xid(), machine.address, carried, item, to, waits=PXE_WAITS)
        found = yield from inquire(machine, inquiry)
        if found is not None:
            return found
    return Stopped("PXE-E78", "Could not locate boot server")


# --- the loader -------------------------------------------------------------------------------------------------


def _load(machine: Machine, build: Build, message: Message, ack: Message) -> Steps[Outcome]:
    """The size from one port, the file from the next; then the jump."""
    name = message.boot_file
    option = message.option(dhcp4.BOOT_FILE)
    if build.runs_on and option is not None and b"\0" not in option:
        name = option + b"\xff"
    if not name:
        return Stopped("PXE-E53", "No boot filename received")
    if message.siaddr == dhcp.ANY:
        return Stopped("PXE-E7B", "Missing MTFTP server IP address")
    server = message.siaddr
    asked = yield from fetch(
        machine, TftpGet(server, name, ((b"tsize", b"0"),), TFTP_WAITS, probe=0, port=SIZE_PORT)
    )  # fmt: skip
    if isinstance(asked, NotFetched):
        return _stopped(asked)
    if asked.octets > LARGEST_PROGRAM:
        return Stopped("PXE-E79", "NBP is too big to fit in free base memory")
    wanted = TftpGet(
        server, name, ((b"blksize", b"%d" % BLOCK),), TFTP_WAITS, port=READ_PORT, limit=LARGEST_PROGRAM
    )  # fmt: skip
    got = yield from fetch(machine, wanted)
    if isinstance(got, NotFetched):
        return _stopped(got)
    shown = name.decode("utf-8", "replace")
    url = f"tftp://{server}/{shown.lstrip('/')}"
    return (yield from chain.start_bios(machine, pxe.image(shown, url, got), pxe.Cached(ack, message, url)))


def _stopped(failure: NotFetched) -> Stopped:
    match failure.why:
        case "timeout" | "unreachable":
            return Stopped("PXE-E32", "TFTP open timeout")
        case "error" if failure.code == 1:
            return Stopped("PXE-E3B", "TFTP Error - File Not found")
        case "error" if failure.code == 2:
            return Stopped("PXE-E3C", "TFTP Error - Access Violation")
        case "error":
            return Stopped("PXE-E36", "Error received from TFTP server")
        case "options":
            return Stopped("PXE-E3F", "TFTP packet size is invalid")
        case "too big":
            return Stopped("PXE-E79", "NBP is too big to fit in free base memory")
        case _:
            return Stopped("PXE-E35", "TFTP read timeout")
