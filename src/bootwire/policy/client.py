"""Who is asking: what one DHCP message says about the machine and its firmware, read leniently.

Reads the packet alone: nothing here depends on what we have to offer or on earlier packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bootwire.policy import quirks
from bootwire.policy.quirks import Quirk
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable


class Kind(Enum):
    """What kind of client; the value is how a sentence calls it."""

    IPXE = "iPXE"
    HTTP = "UEFI HTTP Boot"
    PXE = "PXE firmware"
    RASPBERRY_PI = "Raspberry Pi boot ROM"
    U_BOOT = "U-Boot"
    FREEBSD = "FreeBSD loader"
    PETITBOOT = "petitboot"
    BSDP = "Apple NetBoot"
    NAMELESS = "PXE client without an architecture"
    BOOTP = "BOOTP client"
    HOST = "ordinary host"


@dataclass(frozen=True, slots=True)
class Client:
    """One reading of one message.

    machine        MAC, lower-case with colons, "" where the message has none
    summary        "UEFI x64", "BIOS", "iPXE 1.21.1 BIOS (http, bzImage)"
    architectures  option 93 as sent (IANA Processor Architecture Types)
    platforms      the loader directories that suit, best first, without repeats: "bios", "x86_64" …; may be empty
    features       what iPXE says it can do (keys of dhcp4.FEATURES)
    knows_features iPXE sent option 175 at all
    uuid           option 97 as text, "" if it holds none
    vendor_class user_class   printable, cut
    vendor         the vendor class to answer with: b"PXEClient", b"HTTPClient", b"HW-Client"; b"" for none
    family         equal for machines with the same firmware: what worked for one is tried first on the next
    quirks         oddities this message shows
    """

    kind: Kind
    machine: str
    summary: str
    architectures: tuple[int, ...]
    platforms: tuple[str, ...]
    features: frozenset[int]
    knows_features: bool
    uuid: str
    vendor_class: str
    user_class: str
    vendor: bytes
    family: str
    quirks: tuple[Quirk, ...]

    @property
    def architecture(self) -> int:
        """The first number of option 93 that is known, else the first, else -1."""
        known = (number for number in self.architectures if number in ARCHITECTURES)
        return next(known, self.architectures[0] if self.architectures else -1)

    @property
    def bios(self) -> bool:
        return self.platforms[:1] == ("bios",)


def classify(message: Message) -> Client:
    """Read who sent `message`. Total: every message is some kind of client."""
    options = dict(message.options)
    vendor_class = options.get(dhcp4.VENDOR_CLASS, b"")
    user_class = options.get(dhcp4.USER_CLASS, b"")
    machine_id = options.get(dhcp4.MACHINE_ID)
    etherboot = options.get(dhcp4.ETHERBOOT)
    numbers = dhcp4.architectures(options.get(dhcp4.ARCHITECTURE, b""))
    platforms = _platforms(numbers)
    features = dhcp4.ipxe_features(etherboot) if etherboot else frozenset[int]()
    kind = _kind(message, options, vendor_class, user_class, numbers)
    machine = message.mac
    return Client(
        kind=kind,
        machine=machine,
        summary=_summary(kind, numbers, features, etherboot, vendor_class),
        architectures=numbers,
        platforms=platforms,
        features=features,
        knows_features=etherboot is not None,
        uuid=dhcp4.machine_uuid(machine_id),
        vendor_class=printable(vendor_class) if vendor_class else "",
        user_class=printable(b" ".join(dhcp4.user_classes(user_class))) if user_class else "",
        vendor=_vendor(kind, vendor_class),
        family=f"{machine[:8]} {numbers} {vendor_class[:64]!r}" if kind in _ANSWERABLE else "",
        quirks=_quirks(kind, message, vendor_class, numbers, machine_id),
    )


# IANA "Processor Architecture Types" (RFC 4578 section 2.1, RFC 5970): loader directory ("" where none of ours can
# run) and name. What 2, 4, 5, 8, 9 and 17 stand for in the field: policy.quirks.
ARCHITECTURES: Mapping[int, tuple[str, str]] = {
    0: ("bios", "BIOS"), 1: ("", "NEC PC-98"), 2: ("i386", "UEFI ia32"), 3: ("", "DEC Alpha"), 4: ("bios", "BIOS"),
    5: ("bios", "BIOS"), 6: ("i386", "UEFI ia32"), 7: ("x86_64", "UEFI x64"), 8: ("x86_64", "UEFI x64"),
    9: ("x86_64", "UEFI x64"), 10: ("arm32", "UEFI arm32"), 11: ("arm64", "UEFI arm64"),
    12: ("", "PowerPC Open Firmware"), 13: ("", "PowerPC ePAPR"), 14: ("", "POWER OPAL"),
    15: ("i386", "UEFI HTTP ia32"), 16: ("x86_64", "UEFI HTTP x64"), 17: ("x86_64", "UEFI HTTP x64"),
    18: ("arm32", "UEFI HTTP arm32"), 19: ("arm64", "UEFI HTTP arm64"), 20: ("bios", "BIOS HTTP"),
    21: ("", "U-Boot arm32"), 22: ("", "U-Boot arm64"), 23: ("", "U-Boot HTTP arm32"), 24: ("", "U-Boot HTTP arm64"),
    25: ("riscv32", "UEFI riscv32"), 26: ("riscv32", "UEFI HTTP riscv32"), 27: ("riscv64", "UEFI riscv64"),
    28: ("riscv64", "UEFI HTTP riscv64"), 29: ("", "UEFI riscv128"), 30: ("", "UEFI HTTP riscv128"),
    31: ("", "s390 basic"), 32: ("", "s390 extended"), 33: ("", "UEFI mips32"), 34: ("", "UEFI mips64"),
    35: ("", "UEFI sunway32"), 36: ("", "UEFI sunway64"), 37: ("", "UEFI loong32"), 38: ("", "UEFI HTTP loong32"),
    39: ("loong64", "UEFI loong64"), 40: ("loong64", "UEFI HTTP loong64"), 41: ("", "Raspberry Pi"),
}  # fmt: skip

# --- helpers ----------------------------------------------------------------------------------------------------

_ANSWERABLE = (Kind.IPXE, Kind.HTTP, Kind.PXE, Kind.RASPBERRY_PI)
_U_BOOT_ARCHITECTURES = (21, 22, 23, 24)
_PETITBOOT_ARCHITECTURES = (13, 14)  # open-power/petitboot discover/platform-{arm64,powerpc}.c
_RASPBERRY_ARCHITECTURE = 41


def _kind(
    message: Message, options: Mapping[int, bytes], vendor_class: bytes, user_class: bytes, numbers: tuple[int, ...]
) -> Kind:
    if dhcp4.MESSAGE_TYPE not in options:
        return Kind.BOOTP
    if vendor_class.startswith(b"AAPLBSDPC"):
        return Kind.BSDP
    if vendor_class.startswith(b"HTTPClient"):
        return Kind.HTTP if numbers else Kind.NAMELESS
    if user_class and any(name in user_class for name in (b"iPXE", b"gPXE")):
        return Kind.IPXE
    if vendor_class.startswith(b"U-Boot") or (numbers and numbers[0] in _U_BOOT_ARCHITECTURES):
        return Kind.U_BOOT
    if vendor_class.startswith(quirks.VENDOR_CLASSES):
        if not numbers:
            return Kind.FREEBSD if b"FreeBSD" in user_class else Kind.NAMELESS
        if _is_raspberry(message, options, numbers):
            return Kind.RASPBERRY_PI
        if _poses_as_uefi(message, options, numbers):
            return Kind.U_BOOT
        return Kind.PXE
    if numbers and numbers[0] in _PETITBOOT_ARCHITECTURES:
        return Kind.PETITBOOT
    return Kind.HOST


def _is_raspberry(message: Message, options: Mapping[int, bytes], numbers: tuple[int, ...]) -> bool:
    if _RASPBERRY_ARCHITECTURE in numbers:
        return True
    if options.get(dhcp4.MACHINE_ID, b"").startswith(quirks.RASPBERRY_MACHINE_IDS):
        return True
    return numbers[0] == 0 and message.mac.startswith(quirks.RASPBERRY_PREFIXES)


def _poses_as_uefi(message: Message, options: Mapping[int, bytes], numbers: tuple[int, ...]) -> bool:
    return (
        not message.flags & dhcp4.BROADCAST
        and dhcp4.MACHINE_ID not in options
        and dhcp4.PXELINUX_CONFIG in options.get(dhcp4.REQUEST_LIST, b"")
        and 0 not in numbers
    )


def _platforms(numbers: tuple[int, ...]) -> tuple[str, ...]:
    if len(numbers) == 1:  # nearly always
        found = ARCHITECTURES.get(numbers[0])
        return (found[0],) if found and found[0] else ()
    return tuple(dict.fromkeys(ARCHITECTURES[n][0] for n in numbers if n in ARCHITECTURES and ARCHITECTURES[n][0]))


def _vendor(kind: Kind, vendor_class: bytes) -> bytes:
    if kind is Kind.HTTP:
        return b"HTTPClient"
    if kind not in _ANSWERABLE:
        return b""
    return next((name for name in quirks.VENDOR_CLASSES if vendor_class.startswith(name)), b"PXEClient")


def _summary(
    kind: Kind, numbers: tuple[int, ...], features: frozenset[int], etherboot: bytes | None, vendor_class: bytes
) -> str:
    name = _architecture_name(numbers)
    match kind:
        case Kind.IPXE:
            words = [word for word in ("iPXE", _version(etherboot), name) if word]
            if etherboot is None:
                return " ".join(words)
            able = [dhcp4.FEATURES[code] for code in _TELLING if code in features]
            return f"{' '.join(words)} ({', '.join(able) or 'no http, no bzImage'})"
        case Kind.HTTP:
            return name if "HTTP" in name else f"{name} over HTTP"
        case Kind.PXE:
            return name
        case Kind.U_BOOT:
            return name if name.startswith("U-Boot") else f"U-Boot {name}".rstrip()
        case Kind.HOST if vendor_class:
            return f"ordinary host ({printable(vendor_class, 40)})"
        case _:
            return str(kind.value)


_TELLING = (dhcp4.IPXE_HTTP, dhcp4.IPXE_BZIMAGE, dhcp4.IPXE_EFI)


def _architecture_name(numbers: tuple[int, ...]) -> str:
    """ "UEFI x64"; of several the first that is known."""
    for number in numbers:
        if number in ARCHITECTURES:
            return ARCHITECTURES[number][1]
    return f"architecture {numbers[0]}" if numbers else ""


def _version(etherboot: bytes | None) -> str:
    """iPXE's version as option 175 tells it, "1.21.1" (FEATURE_VERSION in iPXE's features.h: three octets)."""
    if etherboot is None:
        return ""
    try:
        found = dict(dhcp4.sub_options(etherboot)).get(dhcp4.IPXE_VERSION, b"")
    except WireError:
        return ""
    return ".".join(map(str, found)) if len(found) == 3 else ""


def _quirks(
    kind: Kind, message: Message, vendor_class: bytes, numbers: tuple[int, ...], machine_id: bytes | None
) -> tuple[Quirk, ...]:
    if kind is Kind.U_BOOT and vendor_class.startswith(b"PXEClient"):
        return (quirks.POSES_AS_UEFI,)
    if kind not in _ANSWERABLE:
        return ()
    found = [quirks.ARCHITECTURE_QUIRKS[number] for number in numbers if number in quirks.ARCHITECTURE_QUIRKS]
    if machine_id is None:
        found.append(quirks.NO_MACHINE_ID)
    elif len(machine_id) != 17 or machine_id[0]:
        found.append(quirks.ODD_MACHINE_ID)
    if vendor_class[9:15] == b":Arch:" and vendor_class[15:20].isdigit() and int(vendor_class[15:20]) not in numbers:
        found.append(quirks.ARCH_DISAGREES)
    if vendor_class.startswith(b"HW-Client"):
        found.append(quirks.HUAWEI_VENDOR)
    if message.hlen == 16:
        found.append(quirks.GUID_ADDRESS)
    return tuple(found)
