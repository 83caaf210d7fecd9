"""U-Boot: its DHCP, the search of `pxe get`, and its EFI boot method.

Sources: u-boot net/bootp.c, net/tftp.c, boot/pxe_utils.c, boot/bootmeth_pxe.c, boot/bootmeth_efi.c, cmd/pxe.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.engine import MS, Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas import chain, pxe, syslinux
from bootwire.preboot.personas.steps import (
    Fetched,
    Machine,
    NotFetched,
    Persona,
    Steps,
    Stopped,
    TftpGet,
    agreed,
    fetch,
    lease,
    show,
)
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Options

WAITS = (250 * MS, 500 * MS, 1 * S, 2 * S, 4 * S, 8 * S, 12 * S)
"""250 ms, doubled; 28 s in all (net/bootp.c, CONFIG_NET_RETRY_COUNT aside)."""

RESTARTS = 5  # U-Boot would go on for ever; a person has given up by then
TFTP_WAITS = (5 * S,) * 10  # TIMEOUT and TIMEOUT_COUNT, net/tftp.c
REQUESTED = bytes((1, 3, 6, 12, 17, 209))


@dataclass(frozen=True, slots=True)
class Build:
    """One build.

    arch          option 93: 0x15 arm, 0x16 arm64 (the EFI boot method sends 10, 11, 27 instead)
    vendor_class  "U-Boot.armv8" and the like
    efi           the EFI boot method: poses as a PXE client and starts what the boot file names
    """

    arch: int = 0x16
    vendor_class: bytes = b"U-Boot.armv8"
    efi: bool = False


EFI = Build(11, b"PXEClient:Arch:00011:UNDI:003000", efi=True)


def boot(machine: Machine, build: Build | None = None) -> Persona:
    """`dhcp`, then `pxe get; pxe boot`, or the boot file as an EFI program."""
    build = build or Build()
    rules = dhcp.Rules(
        options=lambda ask: options(build, ask), choose=choose, discover=WAITS, request=WAITS, restarts=RESTARTS
    )
    yield from show("BOOTP broadcast 1")
    leased = yield from lease(machine, dhcp.Client(rules, machine.mac, machine.xid))
    if isinstance(leased, dhcp.Failed):
        return Stopped("", "Retry time exceeded; starting again")
    yield from show(f"DHCP client bound to address {leased.address}")
    message = leased.ack.message
    if message.siaddr == dhcp.ANY:
        return Stopped("", "*** ERROR: `serverip' not set")
    if build.efi:
        name = message.boot_file
        if not name:
            return Stopped("", "No boot file: the EFI boot method finds nothing")
        got = yield from fetch(machine, _request(message.siaddr, name))
        if isinstance(got, NotFetched):
            return Stopped("", _trouble(got))
        shown = name.decode("utf-8", "replace")
        url = f"tftp://{message.siaddr}/{shown.lstrip('/')}"
        program = pxe.image(shown, url, got)
        return (yield from chain.start_efi(machine, build.arch, program, pxe.Cached(message, None, url)))
    directory = syslinux.directory_of(message)

    def get(name: str) -> Steps[Fetched | NotFetched]:
        return syslinux.get_file(machine, directory, name, b"1468", TFTP_WAITS)

    config = yield from syslinux.search(get, _places(machine, message.option(dhcp4.PXELINUX_CONFIG)))
    if config is None:
        return Stopped("", "Config file not found")
    return (yield from syslinux.boot(machine, config, get))


def options(build: Build, ask: dhcp.Ask) -> Options:
    """dhcp_extended(), net/bootp.c; no machine id where the environment has no `pxeuuid`."""
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        (dhcp4.MAX_SIZE, (576).to_bytes(2, "big")),
        *agreed(ask),
        (dhcp4.ARCHITECTURE, build.arch.to_bytes(2, "big")),
        (dhcp4.NIC_INTERFACE, b"\1\0\0"),
        (dhcp4.VENDOR_CLASS, build.vendor_class),
        (dhcp4.REQUEST_LIST, REQUESTED),
    )


def choose(heard: Sequence[dhcp.Heard], _elapsed: Ns) -> dhcp.Choice | None:
    """The first offer with an address; proxies are not looked at (CONFIG_SERVERIP_FROM_PROXYDHCP is off)."""
    offers = [one for one in heard if one.message.type == dhcp4.OFFER and one.message.yiaddr != dhcp.ANY]
    return dhcp.Choice(offers[0]) if offers else None


def _places(machine: Machine, named: bytes | None) -> list[str]:
    """pxe_get(), boot/pxe_utils.c."""
    names = [f"01-{machine.mac.hex('-')}", *syslinux.addresses(machine.address), "default-arm-armv8", "default-arm"]
    found = [f"pxelinux.cfg/{name}" for name in (*names, "default")]
    return [named.decode("utf-8", "replace"), *found] if named else found


def _request(server: str, name: bytes) -> TftpGet:
    return TftpGet(server, name, ((b"timeout", b"5"), (b"tsize", b"0"), (b"blksize", b"1468")), TFTP_WAITS)


def _trouble(failure: NotFetched) -> str:
    if failure.why == "error" and failure.code in (1, 2):
        return f"TFTP error: {failure.text} ({failure.code})"
    if failure.why == "error":
        return f"TFTP error: {failure.text} ({failure.code}); Starting again"  # and so on for ever
    return "Retry count exceeded; starting again"
