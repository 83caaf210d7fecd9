"""Boot loaders known by their content: what a file is, how old, for whom, what it can do; and which one to give whom.

iPXE's EFI builds are read as they lie. Its BIOS builds carry their code compressed (raw LZMA1 with lc 2, lp 0, pb 0,
src/util/zbin.c and src/arch/x86/prefix/unlzma.S of iPXE), so they are unpacked first and then read the same way.
What cannot be told is left empty, never guessed.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bootwire.assets import der, pe

MAX_SIZE = 16 << 20  # octets; no network boot loader comes near (GRUB with every module: 4 MiB)

NAMES = {"ipxe": "iPXE", "grub": "GRUB", "shim": "shim", "efi": "EFI program"}
"""How a person calls a kind of build; the others are called what they are."""


@dataclass(frozen=True, slots=True)
class Build:
    """One boot loader build.

    kind          ipxe, pxelinux, lpxelinux, syslinux, shim, grub, or "efi" for an EFI program we do not know
    architecture  bios, i386, x86_64, arm32, arm64, riscv32, riscv64, loong64
    version       as in the file: "1.0.0+git-20190125.36a4c85-5.1", "16.1"; "" if it does not say
    drivers       of iPXE: "firmware" (undionly, snponly: the card is driven by the firmware), "own" (its own drivers)
    features      of iPXE and GRUB, lower case: http, https, autoexec, syslog, vlan, ipv6, menu, nfs, iscsi …
    signers       who signed it: common names of the issuers of the signing certificates; empty if unsigned
    """

    kind: str
    architecture: str
    version: str = ""
    drivers: str = ""
    features: frozenset[str] = frozenset()
    signers: tuple[str, ...] = ()

    @property
    def year(self) -> int:
        """Of the source, where the version tells it ("git-20190125"; 2.0 is of 2026), else 0."""
        dated = re.search(r"git-?((?:20)\d\d)\d{4}", self.version)
        return int(dated[1]) if dated else 0

    def __str__(self) -> str:
        name = NAMES.get(self.kind, self.kind)
        drivers = {"firmware": "firmware's network driver", "own": "own network drivers"}.get(self.drivers, "")
        signed = f"signed: {', '.join(self.signers)}" if self.signers else ""
        version = self.version or ("unknown version" if self.kind != "efi" else "")
        place = "BIOS" if self.architecture == "bios" else f"UEFI {self.architecture}"
        return ", ".join(part for part in (f"{name} {version}".strip(), place, drivers, signed) if part)


def identify(data: bytes) -> Build | None:
    """Which boot loader `data` is (the whole file), or None if it is none we know. Total; some tens of ms."""
    if len(data) > MAX_SIZE:
        return None
    headers = pe.read(data)
    if headers is not None:
        return _efi(data, headers) if headers.efi else None
    return _bios(data)


def choose(available: Iterable[tuple[str, Build]]) -> dict[str, tuple[str, Build]]:
    """The best file for each name of the catalog that policy hands out: {"x86_64/snponly.efi": (path, build), …}.

    available: (path, build) pairs, in the order of trust: of equally good ones the first stays. Better is: what the
    name says about drivers, then features (HTTP first of all; then autoexec, HTTPS, syslog), then the newer version.
    iPXE, lpxelinux and syslinux.efi builds are chosen; one without HTTP can do nothing for us and never is.
    """
    best: dict[str, tuple[str, Build]] = {}
    for path, build in available:
        name = catalog_name(build)
        if name and (name not in best or _rank(build) > _rank(best[name][1])):
            best[name] = (path, build)
    return best


def catalog_name(build: Build) -> str:
    """Under which name a build is served, "" for one that is not: "bios/undionly.kpxe", "arm64/ipxe.efi"."""
    if "http" not in build.features:
        return ""
    if build.kind == "lpxelinux":
        return "bios/lpxelinux.0"
    if build.kind == "syslinux" and build.architecture in ("i386", "x86_64"):
        return f"{build.architecture}/syslinux.efi"
    if build.kind != "ipxe":
        return ""
    firmware = build.drivers == "firmware"
    if build.architecture == "bios":
        return "bios/undionly.kpxe" if firmware else "bios/ipxe.pxe"
    return f"{build.architecture}/{'snponly' if firmware else 'ipxe'}.efi"


_WORTH = ("http", "autoexec", "https", "syslog")


def _rank(build: Build) -> tuple[object, ...]:
    numbers = tuple(int(number) for number in re.findall(r"\d+", build.version.split("+", 1)[0])[:3])
    return (*(name in build.features for name in _WORTH), numbers, build.year)


def _efi(data: bytes, headers: pe.Pe) -> Build | None:
    signers = der.signers(data, *headers.certificates)
    where = headers.architecture
    if b"Open Source Network Boot Firmware" in data or _SBAT_IPXE.search(data):
        return _ipxe(data, where, signers)
    if (shim := _SHIM.search(data)) is not None:
        return Build("shim", where, shim[1].decode(), signers=signers)
    if (grub := _GRUB.search(data)) is not None or b"GNU GRUB" in data:
        http = frozenset({"http"} if b"net/http.c" in data else ())
        return Build("grub", where, grub[1].decode() if grub else "", features=http, signers=signers)
    if (syslinux := _SYSLINUX_EFI.search(data)) is not None:
        return Build("syslinux", where, syslinux[1].decode(), features=frozenset({"http"}), signers=signers)
    return Build("efi", where, signers=signers)


_SBAT_IPXE = re.compile(rb"\nipxe,\d+,iPXE,")
_SHIM = re.compile(rb"UEFI SHIM\n\$Version: ([0-9A-Za-z.~+-]{1,40}) \$")
_GRUB = re.compile(rb"\ngrub,\d+,Free Software Foundation,grub,([0-9A-Za-z.~+-]{1,40}),")
_SYSLINUX_EFI = re.compile(rb"\0Syslinux ([0-9A-Za-z.~+-]{1,40}) \(EFI; ")
_VERSION = re.compile(rb"[\0\x90](\d+\.\d+\.\d+[+~.A-Za-z0-9-]{0,60}(?: \([0-9a-g]{1,42}\))?)\0")
_SAYS = {  # features by a text that only a build with them holds
    "http": b"HTTP",
    "https": b"HTTPS",
    "tftp": b"TFTP",
    "ipv6": b"IPv6",
    "vlan": b"VLAN",
    "nfs": b"NFS",
    "iscsi": b"iSCSI",
    "menu": b"Menu",
    "syslog": b"syslog",
}
_OWN_DRIVERS = b"Digital DC21040 Tulip"  # the first PCI card name of a build with every driver, since gPXE


def _ipxe(data: bytes, where: str, signers: tuple[str, ...] = ()) -> Build:
    version = _VERSION.search(data)
    # A C string begins after the NUL of another or after code, which x86 pads with 0x90.
    features = frozenset(n for n, text in _SAYS.items() if b"\0%b\0" % text in data or b"\x90%b\0" % text in data)
    if b"autoexec.ipxe" in data:
        features |= {"autoexec"}
    own = _OWN_DRIVERS in data
    firmware = b"SNPONLY" in data or b"UNDIONLY" in data or b"undionly" in data
    drivers = "own" if own else "firmware" if firmware else ""
    return Build("ipxe", where, version[1].decode() if version else "", drivers, features, signers)


def _bios(data: bytes) -> Build | None:
    if data[:1] == b"\xea":  # a network boot program starts with a far jump: both iPXE's and PXELINUX's do
        if (pxelinux := _PXELINUX.search(data[:65536])) is not None:
            kind = "lpxelinux" if pxelinux[2] == b"lwIP" else "pxelinux"
            return Build(kind, "bios", pxelinux[1].decode(), features=frozenset({"http"} if kind[0] == "l" else ()))
        if (code := _unzbin(data)) is not None:
            return _ipxe(code, "bios")
    return None


_PXELINUX = re.compile(rb"\r\nPXELINUX ([0-9A-Za-z.~+-]{1,40}) (PXE|lwIP) ")
_PREFIX = 16384  # octets of a BIOS build that are not compressed: 4756 to 5316 in the builds seen
_PROBE = 4096  # octets unpacked to see whether a guess leads anywhere
_CODE = 8 << 20  # octets of unpacked code; builds with every driver have 0.9 MB
_WORK = 4 * _CODE  # octets unpacked for all guesses together
_LZMA = [{"id": lzma.FILTER_LZMA1, "lc": 2, "lp": 0, "pb": 0, "dict_size": _CODE}]


def _unzbin(data: bytes) -> bytes | None:
    """The code of an iPXE BIOS build, unpacked. Where the packed part starts is not written anywhere: it is tried.

    Such a stream starts with a zero octet, and a wrong guess fails within a few octets.
    """
    left = _WORK
    at = data.find(b"\0", 512, _PREFIX)
    while at >= 0 and left > 0:
        probe = _unlzma(data[at : at + _PROBE], _PROBE)
        if len(probe) == _PROBE:
            code = _unlzma(data[at:], _CODE)
            if b"iPXE" in code:
                return code
            left -= len(code)
        left -= len(probe) + 64  # a failure at once costs something, too
        at = data.find(b"\0", at + 1, _PREFIX)
    return None


def _unlzma(data: bytes, most: int) -> bytes:
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_LZMA).decompress(data, most)
    except lzma.LZMAError:
        return b""
