"""iPXE: in the ROM of a card, or loaded by other firmware.

Sources: ipxe src/net/udp/dhcp.c, src/config/dhcp.h, src/usr/autoboot.c, src/core/cachedhcp.c,
src/interface/efi/efi_autoexec.c, src/net/udp/tftp.c, src/net/tcp/httpcore.c. Differences between the build in Debian 12
(git of 2019-01-25) and 2.0 as they are in its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.engine import Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.policy import offers
from bootwire.preboot.personas import ipxe_script, pxe
from bootwire.preboot.personas.steps import (
    QUARTER,
    Machine,
    Outcome,
    Persona,
    Steps,
    Stopped,
    agreed,
    configure,
    doubling,
    inquire,
    lease,
    show,
)
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Options

PROXY_PATIENCE: Ns = 2 * S  # DHCP_DISC_PROXY_TIMEOUT_SEC and DHCP_REQ_PROXY_TIMEOUT_SEC, config/dhcp.h
DISCOVER_WAITS = doubling(1 * S, 8 * S, 4)  # DHCP_DISC_START_TIMEOUT_SEC 1, _END_ 10: sends at 0, 1, 3, 7; fails at 15
REQUEST_WAITS = doubling(QUARTER, 8 * S, 6)  # _START_ 0 (a quarter), _END_ 10
PROXY_WAITS = doubling(QUARTER, 2 * S, 4)  # as REQUEST, but over at the first time-out after PROXY_PATIENCE
PXEBS_WAITS = doubling(1 * S, 4 * S, 3)  # PXEBS_START_TIMEOUT_SEC 1, PXEBS_MAX_TIMEOUT_SEC 3
MAX_DEFERRALS = 180  # DHCP_DISC_MAX_DEFERRALS
NO_PXEDHCP = 0xB0  # option 175.176: the DHCP server says that no proxy will come
PRIORITY = 1  # option 175.1, signed
REQUESTED = bytes.fromhex("010306070c0f111a2a2b3c42437779 8081828384858687afcb")  # option 55, dhcp.c
REQUESTED_2019 = bytes.fromhex("010306070c0f111a2b3c424377 8081828384858687afcb")  # without 42 and 121


@dataclass(frozen=True, slots=True)
class Build:
    """One binary.

    platform   "pcbios" or "efi"
    arch       option 93
    buildarch  as scripts see it
    version    as scripts and servers see it
    modern     2.0 and what led to it: NAK is obeyed, EFI builds look for autoexec.ipxe
    features   sub-options of option 175
    """

    platform: str
    arch: int
    buildarch: str
    version: str
    modern: bool
    features: tuple[int, ...]

    @property
    def vendor_class(self) -> bytes:
        return b"PXEClient:Arch:%05d:UNDI:%s" % (self.arch, b"002001" if self.platform == "pcbios" else b"003010")


_BUILDARCHS = {0: "i386", 6: "i386", 7: "x86_64", 9: "x86_64", 10: "arm32", 11: "arm64", 25: "riscv32", 27: "riscv64",
               39: "loong64"}  # fmt: skip
_FEATURES = {  # in the order of the linker, as Debian's builds of 2019 and of 2.0.0 send them
    ("pcbios", False): (0x17, 0x22, 0x13, 0x11, 0x27, 0x19, 0x29, 0x10, 0x21, 0x15, 0x18, 0x12),
    ("pcbios", True): (0x17, 0x27, 0x22, 0x13, 0x14, 0x11, 0x19, 0x29, 0x10, 0x21, 0x15, 0x26, 0x18, 0x12),
    ("efi", False): (0x17, 0x24, 0x13, 0x11, 0x27, 0x29, 0x15, 0x12),
    ("efi", True): (0x26, 0x17, 0x27, 0x24, 0x13, 0x14, 0x11, 0x29, 0x15, 0x12),
}
SRP = 0x1B
PXE_EXTENSIONS = 0x10  # the one feature whose version is 2


def build(
    platform: str, arch: int, version: str, *, features: tuple[int, ...] | None = None, srp: bool = False
) -> Build:
    """The build of `version` for a platform: "1.0.0+git-20190125.36a4c85" is Debian 12's, "2.0.0" the newest.

    features: of option 175, None for what such a build has; srp: one with drivers of its own, which has SRP, too.
    """
    modern = not version.startswith("1.0.0")
    own = _FEATURES["efi" if platform == "efi" else "pcbios", modern]
    if srp:
        own = (*own[:-2], SRP, *own[-2:])
    buildarch = _BUILDARCHS.get(arch, "x86_64")
    return Build(platform, arch, buildarch, version, modern, own if features is None else features)


def rom(machine: Machine, firmware: Build | None = None) -> Persona:
    """iPXE in a network card's ROM (QEMU's pxe-*.rom): its own DHCP from the start."""
    return (yield from _autoboot(machine, firmware or build("pcbios", 0, machine.ipxe)))


def start(machine: Machine, firmware: Build, cached: pxe.Cached) -> Persona:
    """iPXE that other firmware has downloaded: undionly.kpxe, ipxe.efi, snponly.efi …

    EFI builds since 2021 first look for autoexec.ipxe beside themselves, then at the root of the same server
    (efi_autoexec.c); a script that ends well leaves nothing more to do.
    """
    if firmware.platform == "efi" and not firmware.modern:
        yield from configure(machine, dhcp.ANY)  # it cannot read what the firmware's PXE has cached
    if firmware.platform == "efi" and firmware.modern:
        directory = cached.directory.rsplit("/", 1)[0] + "/"
        root = "/".join(cached.directory.split("/", 3)[:3]) + "/"
        for where in dict.fromkeys((directory, root)):
            runner = _runner(machine, firmware, where)
            _recall(runner.settings, firmware, cached)
            got = yield from runner.fetch_uri(where + "autoexec.ipxe")
            if not isinstance(got, str):
                return _ended((yield from runner.execute(got)))
    return (yield from _autoboot(machine, firmware, cached))


def _recall(settings: ipxe_script.Settings, firmware: Build, cached: pxe.Cached) -> None:
    """What PXE firmware has cached (core/cachedhcp.c): its ACK, and since 2.0 the proxy's or boot server's answer."""
    settings.remember("cached", cached.ack)
    if firmware.modern and cached.proxy is not None and offers.is_pxe(cached.proxy):
        settings.remember("proxydhcp", cached.proxy)


def _autoboot(machine: Machine, firmware: Build, cached: pxe.Cached | None = None) -> Steps[Outcome]:
    """autoboot(): DHCP on the one network device, then the boot file (netboot())."""
    runner = _runner(machine, firmware, "")
    if cached is not None and (firmware.platform == "pcbios" or firmware.modern):
        _recall(runner.settings, firmware, cached)
    configured = yield from runner.dhcp()
    if not configured:
        yield from show("No more network devices")
        return Stopped("", "No configuration methods succeeded")
    return _ended((yield from runner.netboot()))


def _ended(result: Outcome | str) -> Outcome:
    """iPXE gives the machine back to its firmware."""
    return Stopped("", result or "the script ended without starting anything") if isinstance(result, str) else result


def _runner(machine: Machine, firmware: Build, cwuri: str) -> ipxe_script.Runner:
    return ipxe_script.Runner(machine, firmware, lambda settings: obtain(machine, firmware, settings), cwuri)


# --- DHCP -------------------------------------------------------------------------------------------------------


def obtain(machine: Machine, firmware: Build, settings: ipxe_script.Settings) -> Steps[bool]:
    """A lease, the proxy's settings with it, and the boot server's if a PXE menu was sent: dhcp.c's session."""
    rules = dhcp.Rules(
        options=lambda ask: options(machine, firmware, settings, ask),
        choose=choose,
        discover=DISCOVER_WAITS,
        request=REQUEST_WAITS,
        flags=0 if machine.address == dhcp.ANY else dhcp4.BROADCAST,  # ipv4_has_any_addr, dhcp_create_packet
        secs=_state_bits,
        on_nak="restart" if firmware.modern else "ignore",
        restarts=MAX_DEFERRALS,
    )
    yield from show(f"Configuring (net0 {machine.mac_text})...")
    leased = yield from lease(machine, dhcp.Client(rules, machine.mac, machine.xid))
    if isinstance(leased, dhcp.Failed):
        return False
    settings.forget("proxydhcp")
    settings.forget("pxebs")
    settings.remember("dhcp", leased.ack.message)
    settings.address = (leased.address, leased.mask, leased.router)
    proxy = leased.choice.proxy
    if proxy is None or _no_pxedhcp(leased.choice.offer):
        return True
    if not _has_boot(proxy):
        proxy = yield from _ask_proxy(machine, firmware, settings, proxy)
    if proxy is not None:
        settings.remember("proxydhcp", proxy.message)
    yield from _menu(machine, firmware, settings)
    return True


def options(machine: Machine, firmware: Build, settings: ipxe_script.Settings, ask: dhcp.Ask) -> Options:
    """53, then dhcp_request_options_data, then what dhcp_create_request adds."""
    user_class = settings.override("user-class") or b"iPXE"
    undi = b"\1\2\1" if firmware.platform == "pcbios" else b"\1\3\x0a"
    release = bytes(int(number) for number in firmware.version.split("+")[0].split("-")[0].split(".")[:3])
    bus = b"\1\x1a\xf4\x10\0"  # PCI, a virtio network card
    features = b"".join(bytes((code, 1, 1 + (code == PXE_EXTENSIONS))) for code in firmware.features)
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        (dhcp4.MAX_SIZE, b"\x05\xc0"),
        (dhcp4.ARCHITECTURE, firmware.arch.to_bytes(2, "big")),
        (dhcp4.NIC_INTERFACE, undi),
        (dhcp4.VENDOR_CLASS, settings.vendor_class() or firmware.vendor_class),
        (dhcp4.USER_CLASS, user_class),
        (dhcp4.REQUEST_LIST, REQUESTED if firmware.modern else REQUESTED_2019),
        (dhcp4.ETHERBOOT, b"\xb1\5" + bus + b"\xeb\3" + release + features),
        (dhcp4.CLIENT_ID, b"\1" + machine.mac),
        *(((dhcp4.MACHINE_ID, b"\0" + machine.uuid),) if machine.uuid else ()),
        *agreed(ask),
    )


def choose(heard: Sequence[dhcp.Heard], elapsed: Ns) -> dhcp.Choice | None:
    """dhcp_discovery_rx: the last of the best in each role; one message may be both. Without a proxy only once
    PROXY_PATIENCE is over, or if the DHCP server says that none will come."""
    offer = proxy = None
    for one in heard:
        message = one.message
        if message.yiaddr != dhcp.ANY and one.port == dhcp4.SERVER_PORT and message.type in (dhcp4.OFFER, dhcp4.BOOTP):
            offer = one if offer is None or _priority(one) >= _priority(offer) else offer
        if offers.is_pxe(message):
            proxy = one if proxy is None or _priority(one) >= _priority(proxy) else proxy
    if offer is None:
        return None
    if proxy is not None or elapsed > PROXY_PATIENCE or _no_pxedhcp(offer):
        return dhcp.Choice(offer, proxy)
    return None


def _state_bits(ask: dhcp.Ask) -> int:
    """iPXE's `secs`: the count of sends, whether an offer came, whether a proxy's did (dhcp_tx)."""
    offered = any(one.message.yiaddr != dhcp.ANY for one in ask.heard)
    proxied = any(offers.is_pxe(one.message) for one in ask.heard)
    return (ask.sent + 1) << 2 | offered << 1 | proxied


def _sub(heard: dhcp.Heard, code: int) -> bytes:
    try:
        found = dhcp4.sub_options(heard.message.option(dhcp4.ETHERBOOT) or b"")
    except ValueError:
        return b""
    return next((value for have, value in found if have == code), b"")


def _priority(heard: dhcp.Heard) -> int:
    return int.from_bytes(_sub(heard, PRIORITY)[:1], "big", signed=True)


def _no_pxedhcp(heard: dhcp.Heard) -> bool:
    return any(_sub(heard, NO_PXEDHCP))


def _has_boot(heard: dhcp.Heard) -> bool:
    """dhcp_has_pxeopts: a boot server and a boot file, or a boot menu."""
    message = heard.message
    return (message.siaddr != dhcp.ANY and bool(message.boot_file)) or dhcp4.PXE_MENU in offers.tags(message)


def _ask_proxy(
    machine: Machine, firmware: Build, settings: ipxe_script.Settings, offer: dhcp.Heard
) -> Steps[dhcp.Heard | None]:
    """The ProxyDHCP request, 68 to 4011; without an answer iPXE goes on without the proxy."""
    carried = options(machine, firmware, settings, dhcp.Ask(dhcp4.REQUEST_LEASE, 0, 0, server=offer.server))
    xid = machine.xid()

    def accepts(heard: dhcp.Heard) -> bool:
        right = heard.port == dhcp4.PXE_PORT and heard.message.type in (dhcp4.OFFER, dhcp4.ACK)
        return right and heard.server == offer.server and _has_boot(heard)

    inquiry = dhcp.Inquiry(
        lambda _: dhcp.request(machine.mac, xid, carried, ciaddr=machine.address),
        offer.server, waits=PROXY_WAITS, accepts=accepts,
    )  # fmt: skip
    return (yield from inquire(machine, inquiry))


def _menu(machine: Machine, firmware: Build, settings: ipxe_script.Settings) -> Steps[None]:
    """have_pxe_menu and pxe_menu_boot with nobody at the keyboard: the first item, from its boot server."""
    message = settings.message("proxydhcp") or settings.message("dhcp")
    if message is None or message.option(dhcp4.VENDOR_CLASS) != b"PXEClient":
        return
    vendor = offers.vendor(message)
    if not vendor.menu or offers.boots_directly(message) or vendor.menu[0][0] == 0:
        return
    item = vendor.menu[0][0]
    carried = options(machine, firmware, settings, dhcp.Ask(dhcp4.REQUEST_LEASE, 0, 0))
    for to in pxe.asks_for_item(vendor, item, multicast_first=False):
        inquiry = pxe.item_inquiry(
            machine.mac, machine.xid(), machine.address, carried, item, to, waits=PXEBS_WAITS
        )  # fmt: skip
        found = yield from inquire(machine, inquiry)
        if found is not None:
            settings.remember("pxebs", found.message)
            return
