"""What a machine is offered, and in what shape: pure, and every answer says why.

The ladder has no step that is not needed: firmware that takes a URL gets one; iPXE that can do what the boot needs gets
its script; other firmware gets a loader over TFTP. A retry of the same boot gets the next shape of offer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bootwire.policy.client import Client, Kind
from bootwire.policy.target import Menu, Silence
from bootwire.wire import dhcp4

Recipe = Literal["direct", "binl", "menu", "ipxe", "http-boot", "raspberry"]
"""The shape of an offer.

direct     siaddr, file, and option 43 that says: take it, no discovery
binl       siaddr, file, no option 43: the client comes to port 4011
menu       option 43 with a boot server list, a menu of one and a prompt of zero seconds: the client comes to port 4011
ipxe       siaddr, file, no option 43; iPXE uses it as it is
http-boot  vendor class HTTPClient and a URL
raspberry  option 43 with the one menu text that Raspberry Pi boot ROMs look for
"""


@dataclass(frozen=True, slots=True)
class Offerings:
    """What there is to offer.

    loaders    catalog names of the boot loaders at hand: "x86_64/snponly.efi", "bios/undionly.kpxe" …
    suits      loader directories of the processors that the kernel runs on ("x86_64", "bios"); empty: not known
    raspberry  the published directory holds a Raspberry Pi's boot files
    programs   catalog names of the boot programs at hand: "programs/bios/hello.pxe", "programs/x86_64/hello.efi" …
    program    the one that runs before any loader, without platform and extension ("hello"); "" for none
    loader     which loader brings a kernel there: "ipxe", "pxelinux", or what suits best ("auto")
    sizes      octets of loaders, where known: what goes over TFTP decides between equals
    menu       the menu that the machine's firmware shall show; None: none
    """

    loaders: frozenset[str] = frozenset()
    suits: frozenset[str] = frozenset()
    raspberry: bool = False
    programs: frozenset[str] = frozenset()
    program: str = ""
    loader: Literal["auto", "ipxe", "pxelinux"] = "auto"
    sizes: Mapping[str, int] = field(default_factory=dict)
    menu: Menu | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What this boot has seen so far.

    retry         how many times the machine asked again in this attempt although it had been offered something
    served        loaders that were fetched whole in this boot
    dead          loaders that this machine fetched in earlier attempts and that never showed a sign of life
    worked        the recipe that last brought this kind of machine further, None if not known
    rival_vendor  the network's own DHCP server claims to be a PXE server (it sends option 60), so that clients go there
    programmed    the boot program ran in this boot, and the machine went on to something else
    """

    retry: int = 0
    served: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    worked: Recipe | None = None
    rival_vendor: bool = False
    programmed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Answer the machine.

    loader    catalog name of the boot loader to hand out; "" means the iPXE script (or nothing: raspberry)
    over      how the loader is fetched
    because   why this machine gets this
    how       why the offer has this shape, "" where only one would do
    warnings  (what, what to do about it) that a person should know although the machine is answered
    """

    recipe: Recipe
    loader: str
    over: Literal["tftp", "http"]
    because: str
    how: str = ""
    warnings: tuple[tuple[str, str], ...] = ()


def decide(client: Client, offerings: Offerings, history: History) -> Plan | Silence:
    """What `client` is offered now. The same values give the same answer."""
    match client.kind:
        case Kind.IPXE:
            return _for_ipxe(client, offerings, history)
        case Kind.HTTP | Kind.PXE:
            return _for_firmware(client, offerings, history)
        case Kind.RASPBERRY_PI if offerings.raspberry:
            return Plan("raspberry", "", "tftp", "a Raspberry Pi; it asks for its own files by name")
        case kind:
            return Silence(_SILENCES[kind])


PXELINUX: Mapping[str, str] = {
    "bios": "bios/lpxelinux.0", "x86_64": "x86_64/syslinux.efi", "i386": "i386/syslinux.efi",
}  # fmt: skip
"""PXELINUX's builds that speak HTTP, by platform."""

NOT_BY_AUTO: Mapping[str, str] = {
    "x86_64/syslinux.efi": "its HTTP over EFI's TCP fails on much firmware",
    "i386/syslinux.efi": "its HTTP over EFI's TCP fails on much firmware",
}
"""Pairs of loader and firmware that are known to be bad: given where they are asked for by name, never by themselves.
Syslinux 6.04 was the last, of 2019: bugs like Debian 906414 (EFI network boot hangs) were never mended."""

LOADERS: Mapping[str, tuple[str, ...]] = {
    "bios": ("bios/undionly.kpxe", "bios/ipxe.pxe"),
    **{
        platform: (f"{platform}/snponly.efi", f"{platform}/ipxe.efi")
        for platform in ("i386", "x86_64", "arm32", "arm64", "riscv32", "riscv64", "loong64")
    },
}
"""Catalog names by platform, best first: those that use the firmware's own driver for the card it booted from before
those that bring their own drivers (ipxe.org/appnote/buildtargets)."""

# --- helpers ----------------------------------------------------------------------------------------------------

_UEFI_LADDER: tuple[Recipe, ...] = ("binl", "direct", "menu")
_BIOS_LADDER: tuple[Recipe, ...] = ("direct", "binl")

_WHY: Mapping[Recipe, str] = {
    "direct": "the file is named in the offer itself",
    "binl": "it will ask for the file on port 4011",
    "menu": "it is sent to port 4011 by a boot menu of one",
}

_SILENCES: Mapping[Kind, str] = {
    Kind.RASPBERRY_PI: "a Raspberry Pi needs its own boot files: publish them with --files",
    Kind.U_BOOT: "U-Boot takes its server and file from the network's own DHCP server, not from a ProxyDHCP offer",
    Kind.FREEBSD: "FreeBSD's loader mistakes a ProxyDHCP offer for an address; its own DHCP server must answer it",
    Kind.PETITBOOT: "petitboot reads options 209 and 210 of the network's own DHCP server",
    Kind.BSDP: "Apple NetBoot (BSDP) is not served",
    Kind.NAMELESS: "it calls itself a network boot client but sends no architecture (option 93)",
    Kind.BOOTP: "a BOOTP request without a DHCP message type",
    Kind.HOST: "it does not ask for a network boot",
}


_MENU_HOW = "its firmware shows a boot menu and asks on port 4011 for what is chosen"

_HOW_TO_START: Mapping[bool, str] = {
    True: "try another loader build (`bootwire assets list`)",
    False: "if Secure Boot is on, turn it off in the firmware setup: it refuses unsigned loaders without a word",
}


def _program(client: Client, offerings: Offerings, history: History) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Catalog name of the boot program that this machine runs now, "" for none; and what a person should know."""
    if not offerings.program or history.programmed or client.kind is Kind.HTTP:
        return "", ()
    names = [f"programs/{one}/{offerings.program}.{'pxe' if one == 'bios' else 'efi'}" for one in client.platforms]
    name = next((name for name in names if name in offerings.programs), "")
    if name or not client.platforms:
        return name, ()
    what = f"the boot program {offerings.program} is not there for {client.summary}: it boots without"
    return "", ((what, "give a program built for it"),)


def _for_ipxe(client: Client, offerings: Offerings, history: History) -> Plan | Silence:
    program, warnings = _program(client, offerings, history)
    if program:
        return Plan("ipxe", program, "tftp", f"the boot program {offerings.program} comes first")
    lacks = _lacks(client)
    if not lacks and offerings.menu is not None and offerings.menu.seconds and not history.served:
        return Plan("menu", "", "http", "iPXE, which shows PXE menus", _MENU_HOW, _misfits(client, offerings))
    if not lacks:
        because = "iPXE can do all that the boot needs" if client.knows_features else "iPXE, which says no features"
        return Plan("ipxe", "", "http", because, warnings=_misfits(client, offerings) + warnings)
    missing = " or ".join(lacks)
    names = _candidates(client, offerings)
    fresh = [name for name in names if name not in history.served]
    if fresh:
        over: Literal["tftp", "http"] = "http" if dhcp4.IPXE_HTTP in client.features else "tftp"
        because = f"this iPXE has no {missing}: it gets a full one, once"
        return Plan("ipxe", fresh[0], over, because, warnings=_misfits(client, offerings))
    if names:
        return Silence(f"still an iPXE without {missing} after {', '.join(history.served)}: the chain goes in circles")
    return Silence(f"this iPXE has no {missing}, and there is no full loader for it: run `bootwire assets fetch`")


def _for_firmware(client: Client, offerings: Offerings, history: History) -> Plan | Silence:
    if not client.platforms:
        return Silence(f"no boot loader exists for {client.summary}")
    program, told = _program(client, offerings, history)
    if program:
        recipe, how = _shape(client, history)
        return Plan(recipe, program, "tftp", f"the boot program {offerings.program} comes first", how)
    names, chosen = _chosen(client, offerings)
    if not names:
        return Silence(f"no boot loader for {client.summary} is at hand: run `bootwire assets fetch`")
    told += chosen
    alive = [name for name in names if name not in history.dead]
    loader = alive[0] if alive else names[0]
    because = f"{client.summary} firmware"
    warnings = _misfits(client, offerings) + told
    if history.dead:
        dead = f"{', '.join(history.dead)} was fetched but never started"
        because += f", {dead}"
        warnings += ((f"{dead} on this machine", _HOW_TO_START[client.bios]),)
    if client.kind is Kind.HTTP:
        return Plan("http-boot", loader, "http", because + ", which takes a URL", warnings=warnings)
    if offerings.menu is not None:
        return Plan("menu", loader, "tftp", because, _MENU_HOW, warnings)
    recipe, how = _shape(client, history)
    return Plan(recipe, loader, "tftp", because, how, warnings)


def _shape(client: Client, history: History) -> tuple[Recipe, str]:
    """The recipe for PXE firmware, and why this one now.

    UEFI begins with binl: much of it mishandles option 43 (danderson/netboot pixiecore/dhcp.go; dnsmasq rfc2131.c,
    pxe_uefi_workaround). Where the DHCP server sends option 60 itself, only direct outranks it (EDK2 PxeBcDhcp4.c,
    PxeBcSelectDhcp4Offer).
    """
    ladder = _BIOS_LADDER if client.bios else _UEFI_LADDER
    first, why = ladder[0], ""
    if history.worked in ladder:
        assert history.worked is not None
        first, why = history.worked, " (as it worked for this kind of machine before)"
    elif history.rival_vendor and not client.bios:
        first, why = "direct", " (the network's DHCP server claims PXE clients for itself)"
    order = (first, *(recipe for recipe in ladder if recipe != first))
    recipe = order[min(history.retry, len(order) - 1)]
    if history.retry:
        why = f" (retry {history.retry} of the same boot)"
    return recipe, _WHY[recipe] + why


def _lacks(client: Client) -> list[str]:
    """What the boot needs and this iPXE says it has not; nothing where it says nothing at all."""
    if not client.knows_features:
        return []
    image = dhcp4.IPXE_BZIMAGE if client.bios else dhcp4.IPXE_EFI
    if not client.platforms and {dhcp4.IPXE_BZIMAGE, dhcp4.IPXE_EFI} & client.features:
        image = dhcp4.IPXE_HTTP
    return [dhcp4.FEATURES[code] for code in dict.fromkeys((dhcp4.IPXE_HTTP, image)) if code not in client.features]


def _candidates(client: Client, offerings: Offerings) -> list[str]:
    """Loaders at hand for the first of the client's platforms that has any."""
    for platform in client.platforms:
        found = [name for name in LOADERS[platform] if name in offerings.loaders]
        if found:
            return found
    return []


def _chosen(client: Client, offerings: Offerings) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Loaders that may be handed out, best first, and what a person should know of the choice.

    By itself ("auto") PXELINUX comes first only where it is at hand, is no known bad pair, and needs fewer octets over
    TFTP than iPXE does.
    """
    ipxe = _candidates(client, offerings)
    platform = client.platforms[0]
    name = PXELINUX.get(platform, "")
    if client.kind is Kind.HTTP or name not in offerings.loaders or offerings.loader == "ipxe":
        if offerings.loader == "pxelinux" and client.kind is not Kind.HTTP:
            what = f"there is no PXELINUX with HTTP for {client.summary}: it gets iPXE"
            return ipxe, ((what, "install the packages pxelinux, syslinux-efi and syslinux-common"),)
        return ipxe, ()
    if offerings.loader == "pxelinux":
        return [name, *ipxe], ()
    size, other = offerings.sizes.get(name, 0), offerings.sizes.get(ipxe[0], 0) if ipxe else 0
    smaller = 0 < size < other if ipxe else True
    return ([name, *ipxe] if smaller and name not in NOT_BY_AUTO else ipxe), ()


def _misfits(client: Client, offerings: Offerings) -> tuple[tuple[str, str], ...]:
    """The kernel is for other processors; BIOS firmware says nothing of whether its processor is 32 or 64 bits wide."""
    if not offerings.suits or not client.platforms or offerings.suits.intersection(client.platforms):
        return ()
    what = f"the kernel is for {', '.join(sorted(offerings.suits))}, but this machine is {client.summary}"
    return ((what, "give a kernel built for it"),)
