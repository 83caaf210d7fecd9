"""What a firmware was given to start: is it a program for it, and would Secure Boot let it run. Pure, bounded.

Signatures are read, not verified: whether they hold is for the firmware; that there is none, or whose, is told here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urljoin

from bootwire.assets import loaders, pe
from bootwire.observe import names
from bootwire.serve.doctor.causes import Told, told
from bootwire.serve.doctor.seen import Program, Trial
from bootwire.wire.text import printable

ROM_LIMIT = 0x9D000 - 0x7C00
"""Octets of a network boot program from 0000:7C00 to where PXE ROM and EBDA begin at the latest (PXE 2.1 section
3.3.5: base memory); about 600 KB, of which many ROMs leave 500."""

PLATFORM = {"bios": "bios", "uefi": "x86_64", "uefi-http": "x86_64"}
"""What runs on the firmwares that start a program; iPXE takes scripts, U-Boot and Raspberry Pi other files."""

_FOLLOWED = 8  # programs of a trial looked at
_SCRIPTS, _LINES, _URLS = 16, 400, 32
_MICROSOFT = re.compile(r"Microsoft.*UEFI CA (2011|2023)")
_COMMAND = re.compile(r"\s*(kernel|initrd|imgfetch|module|chain|imgload|imgexec|boot)\s+(.*)")


def read(url: str, data: bytes) -> Program:
    """What a file is. Total."""
    headers = pe.read(data)
    build = loaders.identify(data)
    if headers is not None and headers.efi:
        sbat = ".sbat" in headers.sections
        kind, version = (build.kind, build.version) if build else ("", "")
        signers = build.signers if build else ()
        return Program(printable(url, 300), len(data), kind, version, headers.architecture, signers, sbat)
    if build is not None:
        return Program(printable(url, 300), len(data), build.kind, build.version, "bios", (), False)
    looks = bool(data[:1] in (b"\xea", b"\xe9", b"\xeb", b"\xfa", b"\xfc")) and headers is None
    return Program(printable(url, 300), len(data), "", "", "bios" if looks else "", (), False)


def started(firmware: str, sources: Sequence[tuple[str, bytes]]) -> tuple[Program, ...]:
    """Of the files that came whole, in order: the first, and the programs that shim and GRUB started after it."""
    if firmware not in PLATFORM or not sources:
        return ()
    first = read(*sources[0])
    found = [first]
    if first.kind == "shim":
        for url, data in sources[1:]:
            later = read(url, data)
            if later.architecture not in ("", "bios") and len(found) < _FOLLOWED:
                found.append(later)
    return tuple(found)


def scripted(url: str, data: bytes) -> Iterator[tuple[str, str]]:
    """(what for, URL) of the files that an iPXE script names. What holds a setting, or may fail (||), is left out."""
    if not data.startswith((b"#!ipxe", b"#!gpxe")):
        return
    count = 0
    for line in data.decode("utf-8", "replace").splitlines()[:_LINES]:
        found = _COMMAND.match(line)
        if found is None or "||" in line or count >= _URLS:
            continue
        words = found[2].split()
        while words and words[0].startswith("-"):
            words = words[2 if words[0] in ("-n", "--name", "-t", "--timeout") else 1 :]
        if not words or "${" in words[0]:
            continue
        target = urljoin(url, words[0]) if "://" in words[0] or "://" in url else ""
        if target.startswith(("http://", "https://")):
            count += 1
            yield (
                {"kernel": "kernel", "boot": "kernel", "initrd": "initrd", "module": "initrd"}.get(found[1], ""),
                target,
            )


def role_of(url: str, data: bytes) -> str:
    """What a fetched file is for: by what it holds, else by its name."""
    if data.startswith((b"#!ipxe", b"#!gpxe")):
        return "script"
    return names.stage_of(url.partition("://")[2].partition("/")[2])


# --- what is wrong with them --------------------------------------------------------------------------------------


def findings(trial: Trial) -> Iterator[Told]:
    """Of the programs of one trial."""
    if not trial.programs:
        return
    platform = PLATFORM[trial.firmware]
    first, *later = trial.programs
    values = {"name": first.url, "octets": f"{first.octets:,}"}
    if platform == "bios":
        if first.architecture not in ("", "bios"):
            yield told("wrong-architecture", found=f"UEFI {first.architecture}", client="a BIOS", **values)
        elif not first.architecture:
            yield told("loader-not-nbp", **values)
        elif first.octets > ROM_LIMIT:
            yield told("loader-too-big", limit=f"{ROM_LIMIT:,}", **values)
        return
    if first.architecture in ("", "bios"):
        what = "a BIOS boot loader" if first.kind else "no EFI program"
        yield told("loader-not-efi", what=what, **values)
        return
    if first.architecture != platform:
        client = f"UEFI {platform}"
        yield told("wrong-architecture", found=f"UEFI {first.architecture}", client=client, **values)
        return
    yield from _secure(first, values)
    for one in later[:1]:
        if not one.signers:
            yield told("shim-unsigned-second", name=one.url, shim=first.url)


def _secure(first: Program, values: dict[str, str]) -> Iterator[Told]:
    if not first.signers:
        # iPXE's own builds are unsigned, and known to be: who chose them chose so
        yield told("secure-boot-unsigned-ipxe" if first.kind == "ipxe" else "secure-boot-unsigned", **values)
        return
    years = {found[1] for name in first.signers if (found := _MICROSOFT.search(name))}
    signers = ", ".join(first.signers)
    if not years:
        yield told("secure-boot-own-key", signers=signers, **values)
    elif len(years) == 1:
        year = next(iter(years))
        lacking = "new machines that trust only the CA of 2023" if year == "2011" else "machines from before 2023"
        yield told("secure-boot-one-ca", signers=signers, lacking=lacking, **values)
    if not first.sbat and first.kind == "shim":
        yield told("secure-boot-no-sbat", **values)
