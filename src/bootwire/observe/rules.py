"""What became of a boot: rules as data, each with its source, tried in order against what is known of the boot.

A rule holds or it does not; the first that holds, and whose patience is over, names the cause, says why in a sentence,
and what to do in order of promise. `Cause.bios` and `Cause.uefi` are what the machine's own screen shows then: the two
kinds of firmware use the same letters for different things (PXE-E18, PXE-E16).

Sources: Intel's and others' lists of PXE-E codes for BIOS ROMs; EDK2 NetworkPkg (UefiPxeBcDxe/PxeBcBoot.c and
PxeBcImpl.c, HttpBootDxe); iPXE (src/config/dhcp.h, src/net/udp/dhcp.c); RFC 1350, 2131, 4578; PXE 2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootwire.observe.names import stage_of

if TYPE_CHECKING:
    from bootwire.observe.boots import Boot

NEW_ATTEMPT: float = 120.0
"""Seconds: a DISCOVER after a longer silence is a new attempt (the longest pause inside one is 32 s, PXE 2.1 2.2.1)."""

TRANSFER_PATIENCE: float = 600.0
"""Seconds: a transfer under way is told by its own end; after this long it was lost from the journal."""

LEASES_REMEMBERED: float = 600.0
"""Seconds: a DHCP server that gave any machine an address so lately is alive."""


REFUSAL_REMEMBERED: float = 60.0
"""Seconds before a boot began: an image that could not be had so lately is not asked for anew, but refused again."""


@dataclass(frozen=True, slots=True)
class Cause:
    """because: with fields of the boot in braces; fixes: in order of promise; bios, uefi: what the screen shows."""

    id: str
    because: str
    fixes: tuple[str, ...]
    bios: str = ""
    uefi: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """state: booted, stuck, silent, declined."""

    state: str
    cause: str
    because: str
    fix: str
    screen: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """state, cause; patience: seconds without progress before it is said; holds(boot, leases): whether it applies.

    leases: a DHCP server was heard giving some machine an address lately.
    """

    state: str
    cause: str
    patience: float
    holds: Callable[[Boot, bool], bool]


CAUSES: dict[str, Cause] = {cause.id: cause for cause in (
    Cause("declined", "Bootwire chose not to answer: {declined}", ("change the rule or the file that decides this",),
          "PXE-E53: No boot filename received", "PXE-E16: No valid offer received.", "docs/reference/offers.md"),
    Cause("not-armed", "it may not install now: {declined}",
          ("let it install once: bootwire arm {machine}",),
          "PXE-E53: No boot filename received", "PXE-E16: No valid offer received.", "docs/concepts/boot-states.md"),
    Cause("undecided", "it asked {asked} and nobody has said yet what it shall boot",
          ("look whether the service that decides answers in time", "run with -v to see every step"),
          "PXE-E51: No DHCP or proxyDHCP offers were received", "PXE-E18: Server response timeout."),
    Cause("relay-drops", "it asks through relay {relay}, which has our offer but does not seem to hand it on",
          ("let the relay forward to this server's address, too, and pass replies without an address (yiaddr 0)",
           "or name this server and the boot file in the DHCP server of that network"),
          "PXE-E53: No boot filename received", "PXE-E18: Server response timeout.", "RFC 1542 section 4.1"),
    Cause("second-server", "{rival} answers boot requests on this network, too, and the machine followed that one",
          ("switch network booting off on {rival}", "or keep the two servers on networks of their own"),
          "PXE-E32: TFTP open timeout, or another system's boot menu",
          "PXE-E23: Client received TFTP error from server.",
          "PXE 2.1 section 2.2.3: a client may take any offer"),
    Cause("lease-refused", "{dhcp_by} refuses the address that it asks for (NAK)",
          ("look for a second DHCP server with another range, and for an old lease of this MAC",
           "let only one of the DHCP servers be authoritative"),
          "PXE-E51: No DHCP or proxyDHCP offers were received", "PXE-E07: Network device error.",
          "RFC 2131 section 4.3.2"),
    Cause("offer-without-mask", "the offer of {dhcp_by} has no subnet mask (option 1), and UEFI firmware ends the boot "
          "there",
          ("let the DHCP server {dhcp_by} send option 1",),
          "", "PXE-E21: Remote boot cancelled.", "EDK2 Dhcp4Impl.c"),
    Cause("vendor-class-alone", "the DHCP server {dhcp_by} says that it is a PXE server itself (option 60) and offers "
          "nothing to boot: the machine went to its port 4011 instead of to ours",
          ("remove option 60 (PXEClient) from the DHCP server {dhcp_by}: it is left over from another setup",),
          "PXE-E55: ProxyDHCP service did not reply to request on port 4011", "PXE-E16: No valid offer received.",
          "Microsoft KB259670; EDK2 PxeBcDhcp4.c: DhcpBinl goes before ProxyBinl"),
    Cause("no-next-server", "the DHCP server {dhcp_by} names a boot file and no server to get it from (siaddr 0.0.0.0)",
          ("set next-server in the DHCP server {dhcp_by} to the host that has the file",
           "or remove the boot file there, so that machines that hear ProxyDHCP take our offer"),
          "PXE-E7B: Missing MTFTP server IP address", "PXE-E18: Server response timeout.",
          "RFC 2131 section 2: siaddr; U-Boot net/tftp.c: serverip not set; EDK2 asks the DHCP server itself"),
    Cause("no-dhcp-server", "it heard our offer, but no DHCP server on this network gave it an address",
          ("start the network's DHCP server, or look whether its addresses are used up",
           "look whether that server refuses this machine's MAC"),
          "PXE-E52: proxyDHCP offers were received. No DHCP offers were received", "PXE-E18: Server response timeout.",
          "PXE 2.1 section 2.2; Intel Boot Agent messages"),
    Cause("offers-ignored", "it heard two offers, asked {discovers} times, and took neither: this firmware cannot put "
          "a ProxyDHCP offer and a DHCP offer together, or a switch drops ours",
          ("name this server and the boot file in the DHCP server: next-server {server}, filename {boot_file}",
           "or choose HTTP Boot instead of PXE in the firmware's setup: it is answered already",
           "or trust this server's switch port in DHCP snooping"),
          "PXE-E53: No boot filename received", "PXE-E18: Server response timeout.",
          "UDK2014 (Dell, HP DL380 Gen9): danderson/netboot#43, edk2#6944"),
    Cause("asked-once", "it asked once, was offered {boot_file}, and was not heard again: switched off, or it boots "
          "something else",
          ("look at its screen and its boot order", "look whether our offer gets through: bootwire explain a capture"),
          "PXE-E51: No DHCP or proxyDHCP offers were received", "PXE-E18: Server response timeout."),
    Cause("proxy-ignored", "it took the address {address} and never came here: our offer came too late, was dropped, "
          "or it waits for a key on its screen",
          ("look at its screen", "trust this server's switch port in DHCP snooping",
           "name this server and the boot file in the DHCP server: next-server {server}, filename {boot_file}"),
          "PXE-E53: No boot filename received", "PXE-E16: No valid offer received.",
          "EDK2 waits 4 s for a proxy offer, iPXE 2 s"),
    Cause("pxe-request-lost", "it took the address {address}, which it does only with our offer, and its question to "
          "port 4011 did not come here",
          ("let UDP port 4011 through this server's firewall: sudo ufw allow proto udp to any port 4011",
           "look whether another server on this network answers port 4011 for it"),
          "PXE-E55: ProxyDHCP service did not reply to request on port 4011", "PXE-E16: No valid offer received.",
          "PXE 2.1 section 2.2.4; EDK2 PxeBcDhcp4.c takes no address without something to boot"),
    Cause("pxe-answer-lost", "it asked port 4011 {pxe_requests} times, was answered each time, and asks on: our "
          "answers do not reach it",
          ("let UDP port 4011 of this server through the firewall, both ways",
           "look whether the answers leave from the address that it asks"),
          "PXE-E55: ProxyDHCP service did not reply to request on port 4011", "PXE-E16: No valid offer received.",
          "PXE 2.1 section 2.2.4"),
    Cause("no-tftp-request", "it knows its boot file ({boot_file}) and no TFTP request for it came here",
          ("let UDP port 69 through the firewalls on the way: sudo ufw allow proto udp to any port 69",
           "look whether the machine can reach {server}: another network needs a route and a gateway"),
          "PXE-E32: TFTP open timeout, or PXE-E11: ARP timeout", "PXE-E18: Server response timeout.",
          "RFC 1350; Intel Boot Agent messages"),
    Cause("tftp-replies-lost", "it asks for {name} over TFTP, and what we answer does not reach it: {failed}",
          ("let UDP answers from high ports through (firewall, NAT, container): a TFTP transfer has a port of its own",
           "or serve TFTP from port 69 alone: --tftp-single-port"),
          "PXE-E32: TFTP open timeout", "PXE-E18: Server response timeout.", "RFC 1350 section 4"),
    Cause("big-blocks-lost", "{name} stopped at octet {octets} with {options}: big datagrams do not get through",
          ("look for a smaller MTU on the way (tunnel, VPN, VXLAN) and dropped fragments: bootwire doctor",),
          "PXE-E35: TFTP read timeout", "PXE-E18: Server response timeout.", "RFC 2348"),
    Cause("tftp-broke-off", "{name} broke off after {octets} octets: {failed}",
          ("look for a lossy cable, a duplex mismatch or a port that goes down",),
          "PXE-E35: TFTP read timeout", "PXE-E18: Server response timeout.", "RFC 1350 section 7"),
    Cause("tftp-client-refused", "the machine itself ended {name}: {failed}",
          ("give it a smaller loader: a BIOS takes at most some 500 KB below 640 KB",
           "look whether the file is meant for its kind of firmware"),
          "PXE-E79: NBP is too big to fit in free base memory",
          "PXE-E05: Buffer size is smaller than the requested file.",
          "RFC 1350 section 5"),
    Cause("loader-too-big", "it asked how big {probed} is ({probed_octets:,} octets), and did not fetch it: too big "
          "for its memory below 640 KB",
          ("give it a smaller loader: undionly.kpxe, pxelinux.0",),
          "PXE-E79: NBP is too big to fit in free base memory", "",
          "Intel Boot Agent messages; PXE 2.1 section 4.4.5"),
    Cause("http-wrong-type", "it asked what {probed} is, and did not fetch it: UEFI HTTP Boot takes application/efi, "
          "or names that end in .efi, .iso or .img",
          ("give the file the ending .efi",),
          "", "", "EDK2 HttpBootDxe, HttpBootSupport.c"),
    Cause("file-missing", "it asks for {missing}, which is not served here: {why}",
          ("look at the name, its capitals and its directory", "put the file into the directory of --files"),
          "PXE-T01: File not found, PXE-E3B: TFTP Error - File Not found",
          "PXE-E23: Client received TFTP error from server.",
          "RFC 1350 section 5, error 1"),
    Cause("file-forbidden", "it asks for {missing}, which is here and is not given away: {why}",
          ("let the user that Bootwire runs as read the file, and enter every directory above it: chmod a+r, a+x",
           "look whether SELinux or AppArmor keeps it from Bootwire"),
          "PXE-T02: Access violation, PXE-E3C: TFTP Error - Access Violation",
          "PXE-E23: Client received TFTP error from server.",
          "RFC 1350 section 5, error 2"),
    Cause("loader-loop", "it fetched its boot loader {loads} times in one boot and never asked for a script",
          ("look whether the DHCP server names a boot file of its own: a loader follows that one again and again",),
          "the loader's banner again and again", "the loader's banner again and again",
          "iPXE src/net/udp/dhcp.c: the DHCP server's file wins"),
    Cause("wrong-architecture", "its boot loader {loaded} was fetched whole, but {client} cannot run it",
          ("offer the loader of its own architecture: see docs/reference/loaders.md",),
          "nothing, or PXE-E79: NBP is too big to fit in free base memory", "Unsupported; the next boot entry",
          "RFC 4578 section 2.1"),
    Cause("loader-refused", "its boot loader {loaded} was fetched whole, and shows no sign of life: Secure Boot "
          "refuses an unsigned one, or it hangs",
          ("switch Secure Boot off in the firmware's setup, or serve signed loaders: bootwire assets list",
           "try another build of the loader: bootwire assets list"),
          "nothing after the loader was fetched",
          "Access Denied, Security Violation, or the next boot entry at once",
          "UEFI 2.10 section 32.5; EDK2 PxeBcBoot.c"),
    Cause("loader-no-network", "its boot loader runs ({loader}) and never came for its script: it has no driver for "
          "this network card, or gets no address",
          ("try another build of the loader (snponly.efi, undionly.kpxe use the firmware's own driver)",
           "look whether the link comes up slowly: spanning tree without PortFast costs 30 s"),
          "iPXE: No configuration methods succeeded", "iPXE: No configuration methods succeeded",
          "iPXE src/config/dhcp.h: 10 s a card"),
    Cause("kernel-missing", "its script names {missing}, which is not served here: {why}",
          ("look at the kernel's and initrds' names in the configuration",),
          "iPXE: No such file or directory", "iPXE: No such file or directory"),
    Cause("http-blocked", "{before}: HTTP does not get through{or_else}",
          ("let the HTTP port through the firewall: sudo ufw allow proto tcp to any port 80",
           "look at its screen: it may wait for a key",
           "look whether the DHCP server names a boot file of its own: iPXE follows that one"),
          "iPXE: Connection timed out", "iPXE: Connection timed out",
          "iPXE src/net/tcp.c"),
    Cause("image-refused", "an image that it is to boot cannot be had, or is not what it should be: {refused}",
          ("look at the image's URL, its digest and its signature in the configuration",
           "look whether that server answers from here: bootwire fetch URL"),
          "iPXE: Input/output error", "iPXE: Input/output error"),
    Cause("http-broke-off", "{name} broke off after {octets} octets: {failed}",
          ("look at the link: cable, speed, duplex", "look whether the file's own server answers"),
          "iPXE: Connection reset", "iPXE: Connection reset"),
    Cause("initrd-missing", "it has the kernel and asks for {missing}, which is not served here: {why}",
          ("look at the initrds' names in the configuration",),
          "iPXE: No such file or directory", "iPXE: No such file or directory"),
    Cause("kernel-refused", "it has fetched everything and did not start the kernel{said}",
          ("look whether Secure Boot refuses an unsigned kernel", "look whether the kernel is for {client}",
           "look whether the machine has memory for kernel and initrds"),
          "iPXE: Exec format error", "iPXE: Access denied or Exec format error",
          "UEFI 2.10 section 7.4"),
    Cause("kernel-dies", "the kernel started, and {since} later the machine was back at its firmware",
          ("look at its screen or serial console: a kernel panic, no root file system, a missing driver",
           "add console=ttyS0 to the command line, and panic=0 so that it stays to be read"),
          source="Documentation/admin-guide/kernel-parameters.txt: panic="),
    Cause("started-over", "after {since} without progress it started over",
          ("look at its screen: somebody may have reset it", "look at what came before that")),
)}  # fmt: skip


def _loaded(boot: Boot) -> bool:
    return "loader" in boot.stages and "script" not in boot.stages and "kernel" not in boot.stages


def _lives(boot: Boot) -> bool:
    """A loader has shown itself: it asked DHCP, or for its first script."""
    return bool(boot.loader) or "script" in boot.stages


def _foreign(boot: Boot) -> bool:
    """The loader lies in the directory of another architecture than the firmware's own."""
    name = _last_loader(boot).rpartition("/")[0].rpartition("/")[2]
    own = {"BIOS": "bios", "UEFI x64": "x86_64", "UEFI ia32": "i386", "UEFI arm64": "arm64", "UEFI arm32": "arm32"}
    wanted = own.get(boot.client.replace("UEFI HTTP", "UEFI").removesuffix(" over HTTP"), "")
    return bool(wanted) and name in own.values() and name != wanted


def _bare(boot: Boot) -> str:
    """The boot file without the machine's own directory: the name to give to a DHCP server."""
    return boot.boot_file.removeprefix(boot.machine.replace(":", "-") + "/")


def _last_loader(boot: Boot) -> str:
    return next((t.name for t in reversed(boot.transfers) if stage_of(t.name) == "loader"), "")


def _only_first_script(boot: Boot) -> bool:
    """It has the script that makes it take an address, and not the one that says what to boot."""
    came = "loader" in boot.stages or "script" in boot.stages
    return came and "kernel" not in boot.stages and not _script_asked(boot) and _lives(boot)


def _follows_another(boot: Boot) -> bool:
    """It has nothing from here that says what to boot, and another server offered something."""
    return bool(boot.rival) and not (boot.missing or _script_asked(boot) or "kernel" in boot.stages)


def _upstream_fails(boot: Boot) -> bool:
    """What streams through us broke off before its first octet: its own server does not give it (serve/upstream.py)."""
    found = boot.failed("http")
    return found is not None and not found.octets and (
        " answers " in found.because or " cannot be reached" in found.because
    )  # fmt: skip


def _script_asked(boot: Boot) -> bool:
    return any(record.fact.kind == "script" and getattr(record.fact, "name", "") != "autoexec.ipxe"
               for record in boot.records)  # fmt: skip


def _went_on(boot: Boot) -> bool:
    """It asked for files here, served or not."""
    return bool(boot.transfers or boot.missing or boot.probed) or "script" in boot.stages


def _loader_asks(boot: Boot) -> int:
    """DISCOVERs of the loader that its firmware fetched."""
    found = [record.fact for record in boot.records if record.fact.kind == "discover"]
    return sum("ipxe" in str(getattr(fact, "client", "")).lower() for fact in found[1:])


def _no_script(boot: Boot) -> bool:
    """It has an address and the address of its script, and did not ask for that here."""
    if _script_asked(boot) or "kernel" in boot.stages or boot.missing:
        return False
    rom = boot.recipe == "ipxe" and boot.proxied == "yes" and not _went_on(boot)
    # a loader whose firmware got an address here, and that asks no more, has got one as well
    return rom or ("loader" in boot.stages and 0 < _loader_asks(boot) < 3)


def _too_big(boot: Boot) -> bool:
    return bool(boot.probed and boot.bios and boot.probed[1] > 500 << 10) and not boot.transfers


def _not_efi(boot: Boot) -> bool:
    probed = boot.probed
    kinds = (".efi", ".iso", ".img")
    return bool(probed and probed[2] == "http" and not probed[0].lower().endswith(kinds)) and "HTTP" in boot.client


def _tftp_failed(boot: Boot, *, octets: bool) -> bool:
    found = boot.failed("tftp")
    return found is not None and "the client ended it" not in found.because and bool(found.octets) is octets


def _big_blocks(boot: Boot) -> bool:
    found = boot.failed("tftp")
    if found is None or "blksize" not in found.options:
        return False
    size = found.options.split("blksize", 1)[1].split(",")[0].strip()
    return size.isdigit() and int(size) > 1408 and found.octets <= int(size)


def _client_refused(boot: Boot) -> bool:
    found = boot.failed("tftp")
    return found is not None and "the client ended it" in found.because


def _missing(boot: Boot, stage: str) -> bool:
    return bool(boot.missing) and (stage_of(boot.missing[-1]) == stage or not stage)


def _forbidden(boot: Boot) -> bool:
    return bool(boot.missing) and "may not read it" in boot.missing_why


def _may_not_install(boot: Boot) -> bool:
    """It is told how to arm it (policy.states.allowed)."""
    return "bootwire arm " in boot.declined


def _or_else(boot: Boot) -> str:
    """What else keeps a loader from a script that it was told of: nobody but the machine hears what is sent to it."""
    if _script_asked(boot):
        return ""
    server = f"the DHCP server {boot.given_by}" if boot.given_by else "its DHCP server"
    return f", or {server} names a boot file of its own"


RULES: tuple[Rule, ...] = (
    # What went wrong in so many words comes first, then what can be told from silence alone.
    Rule("declined", "not-armed", 1, lambda b, _: _may_not_install(b) and not _went_on(b)),
    Rule("declined", "declined", 1, lambda b, _: bool(b.declined) and not b.left_alone and not _went_on(b)),
    Rule("stuck", "big-blocks-lost", 3, lambda b, _: _big_blocks(b)),
    Rule("stuck", "loader-too-big", 8, lambda b, _: _too_big(b)),
    Rule("stuck", "http-wrong-type", 8, lambda b, _: _not_efi(b)),
    Rule("stuck", "tftp-client-refused", 5, lambda b, _: _client_refused(b)),
    Rule("stuck", "tftp-replies-lost", 3, lambda b, _: _tftp_failed(b, octets=False)),
    Rule("stuck", "tftp-broke-off", 5, lambda b, _: _tftp_failed(b, octets=True)),
    Rule("stuck", "file-forbidden", 5, lambda b, _: not b.handed_over and _forbidden(b)),
    Rule("stuck", "initrd-missing", 5, lambda b, _: "kernel" in b.stages and _missing(b, "initrd")),
    Rule(
        "stuck",
        "kernel-missing",
        5,
        lambda b, _: "script" in b.stages and "kernel" not in b.stages and _missing(b, "kernel"),
    ),
    Rule("stuck", "image-refused", 8, lambda b, _: _script_asked(b) and (bool(b.refused) or _upstream_fails(b))),
    Rule("stuck", "http-broke-off", 8, lambda b, _: b.failed("http") is not None),
    Rule("stuck", "file-missing", 5, lambda b, _: not b.handed_over and _missing(b, "") and "kernel" not in b.stages),
    Rule(
        "stuck",
        "loader-loop",
        0,
        lambda b, _: b.loader_transfers >= 4 and _loader_asks(b) >= 3 and not _script_asked(b),
    ),
    # iPXE has a script: EDK2, BIOS and iPXE's own start-up are behind it. 30 s: its five tries, three seconds apart.
    Rule("stuck", "kernel-refused", 30, lambda b, _: "kernel" in b.stages and "script" in b.stages),
    Rule("stuck", "http-blocked", 20, lambda b, _: _script_asked(b) and "kernel" not in b.stages),
    Rule("stuck", "second-server", 10, lambda b, _: _follows_another(b) and (_lives(b) or b.recipe == "ipxe")),
    Rule("stuck", "http-blocked", 20, lambda b, _: _no_script(b)),
    Rule("stuck", "loader-no-network", 45, lambda b, _: _only_first_script(b)),  # iPXE gives each card 10 s, link 15 s
    Rule("stuck", "wrong-architecture", 8, lambda b, _: _loaded(b) and not _lives(b) and _foreign(b)),
    Rule("stuck", "loader-refused", 25, lambda b, _: _loaded(b) and not _lives(b)),
    Rule("stuck", "lease-refused", 5, lambda b, _: b.dhcp_heard == "refusal" and not _went_on(b)),
    Rule(
        "stuck", "offer-without-mask", 8, lambda b, _: b.dhcp_heard == "no subnet mask" and not (b.bios or _went_on(b))
    ),
    Rule("stuck", "vendor-class-alone", 8, lambda b, _: b.dhcp_heard == "vendor class alone" and not _went_on(b)),
    Rule("stuck", "no-next-server", 8, lambda b, _: b.dhcp_heard == "no next server" and not _went_on(b)),
    Rule("stuck", "pxe-answer-lost", 5, lambda b, _: b.pxe_requests >= 3 and not _went_on(b)),  # PXE 2.1: 1, 2, 3, 4 s
    Rule("stuck", "second-server", 10, lambda b, _: bool(b.rival) and not _went_on(b)),
    Rule("stuck", "no-tftp-request", 10, lambda b, _: b.pxe_answers > 0 and not _went_on(b)),
    Rule("stuck", "no-tftp-request", 20, lambda b, _: bool(b.address) and b.recipe == "direct" and not _went_on(b)),
    Rule(
        "stuck",
        "pxe-request-lost",
        12,
        lambda b, _: (
            bool(b.address and b.offers)
            and b.client.startswith("UEFI")
            and b.recipe in ("binl", "menu")
            and not (b.pxe_requests or _went_on(b))
        ),
    ),
    Rule("stuck", "proxy-ignored", 12, lambda b, _: bool(b.address) and b.offers > 0 and not _went_on(b)),
    # Only DISCOVERs: UEFI asks at 0, 4, 12 and 28 s, BIOS at 0, 4, 12, 28 and 60 s.
    Rule("silent", "relay-drops", 12, lambda b, _: bool(b.relay) and b.offers > 1 and not _went_on(b)),
    Rule(
        "silent",
        "offers-ignored",
        12,
        lambda b, leases: (leases or bool(b.dhcp_heard)) and b.offers >= 3 and not _went_on(b),
    ),
    Rule("silent", "no-dhcp-server", 12, lambda b, leases: not leases and b.offers >= 3 and not _went_on(b)),
    Rule("silent", "asked-once", 40, lambda b, _: b.offers > 0 and not _went_on(b)),
    Rule("declined", "declined", 40, lambda b, _: b.left_alone and not _went_on(b)),
    Rule("silent", "undecided", 20, lambda b, _: b.discovers > 0 and not b.offers and not _went_on(b)),
)

OF_THE_NEXT = ("kernel-dies", "started-over")
"""Causes that are known only when the machine's next boot begins."""

FETCHED_ALL: float = 20.0
"""Seconds: a loader that is none of ours (PXELINUX, GRUB, U-Boot) has what it asked for and is quiet since."""


def judge(boot: Boot, quiet: float, leases: bool) -> Finding | None:
    """What can be said of a boot that has not moved on for `quiet` seconds; None: nothing yet."""
    if boot.handed_over:
        return booted(boot)
    for rule in RULES:
        if rule.holds(boot, leases):
            if quiet < rule.patience:
                return None  # the first that holds is the one; a later one would only be said sooner
            return _found(rule.state, CAUSES[rule.cause], boot, quiet)
    if quiet >= FETCHED_ALL and ("kernel" in boot.stages or "initrd" in boot.stages):
        because = "it took its kernel and all else that it asked for, from a loader that does not say when it starts it"
        return Finding("booted", "", because, "")
    return None


def booted(boot: Boot) -> Finding:
    """It handed over to its kernel."""
    seconds = boot.stages["hand-over"].ended
    lives = ", and the operating system was heard of" if "alive" in boot.stages else ""
    return Finding("booted", "", f"the kernel started {seconds:.1f} s after the first packet{lives}", "")


def came_back(boot: Boot, since: float) -> Finding:
    """The kernel started, and `since` seconds later the firmware asked again."""
    return _found("stuck", CAUSES["kernel-dies"], boot, since)


def kernel_refused(boot: Boot) -> Finding:
    """It said that it starts the kernel, and then fetched it again."""
    return _found("stuck", CAUSES["kernel-refused"], boot, 0)


def started_over(boot: Boot, quiet: float) -> Finding:
    """A new boot began, and no rule knows why this one had not ended.

    Firmware that has its loader whole and asks anew has refused it, or seen it end: nobody needs to wait for more.
    """
    if _loaded(boot) and not _lives(boot):
        return _found("stuck", CAUSES["wrong-architecture" if _foreign(boot) else "loader-refused"], boot, quiet)
    return _found("stuck", CAUSES["started-over"], boot, quiet)


def _found(state: str, cause: Cause, boot: Boot, quiet: float) -> Finding:
    failed = boot.failed("tftp") or boot.failed("http")
    said = next((line for line in reversed(boot.console) if "ipxe.org/" in line or "failed" in line.lower()), "")
    values = {
        "declined": boot.declined, "discovers": boot.discovers,
        "asked": "once" if boot.discovers == 1 else f"{boot.discovers} times", "relay": boot.relay, "rival": boot.rival,
        "server": boot.server or "this server", "boot_file": _bare(boot) or "nothing yet", "address": boot.address,
        "machine": boot.machine, "or_else": _or_else(boot),
        "pxe_requests": boot.pxe_requests, "name": failed.name if failed else "", "loads": boot.loader_transfers,
        "octets": failed.octets if failed else 0, "failed": failed.because if failed else "",
        "options": failed.options if failed else "", "loaded": _last_loader(boot), "loader": boot.loader,
        "client": boot.client or "this machine", "said": f"; it says: {said}" if said else "",
        "missing": boot.missing[-1] if boot.missing else "", "why": boot.missing_why,
        "refused": boot.refused or (f"{failed.name}: {failed.because}" if failed else ""),
        "since": f"{quiet:.0f} s", "dhcp_by": boot.dhcp_by or "the DHCP server",
        "probed": boot.probed[0] if boot.probed else "", "probed_octets": boot.probed[1] if boot.probed else 0,
        "before": "it has its script and fetched nothing that the script names" if _script_asked(boot)
        else "it has the address of its script and never came for that",
    }  # fmt: skip
    screen = cause.bios if boot.bios else cause.uefi
    fix = "; ".join(text.format_map(values) for text in cause.fixes)
    return Finding(state, cause.id, cause.because.format_map(values), fix, screen)
