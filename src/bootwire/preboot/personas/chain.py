"""What happens to a program that firmware has downloaded: it runs, if this firmware can run it."""

from __future__ import annotations

from dataclasses import replace

from bootwire.preboot.personas import grub, ipxe, pxe, syslinux
from bootwire.preboot.personas.steps import Image, Machine, Outcome, Started, Steps, Stopped, show

MAX_PROGRAMS = 8
"""Programs started one after another: more is a loop of loaders loading each other."""


def start_efi(machine: Machine, arch: int, program: Image, cached: pxe.Cached) -> Steps[Outcome]:
    """LoadImage and StartImage of a UEFI firmware of architecture `arch` (option 93)."""
    if pxe.pe_machine(program.data) != pxe.PE_MACHINES.get(arch):
        return Stopped("", f"{program.name} was not started: not an EFI program for this processor")
    return (yield from _run(machine, "efi", arch, program, cached))


def start_bios(machine: Machine, program: Image, cached: pxe.Cached) -> Steps[Outcome]:
    """A jump to 0000:7C00, whatever is there."""
    if pxe.pe_machine(program.data) is not None:
        return Stopped("", f"{program.name} is an EFI program: a BIOS runs its first octets and hangs")
    return (yield from _run(machine, "pcbios", 0, program, cached))


def _run(machine: Machine, platform: str, arch: int, program: Image, cached: pxe.Cached) -> Steps[Outcome]:
    seen: list[str] = []
    outcome: Outcome = Started(program)
    while isinstance(outcome, Started):
        family = pxe.family(outcome.program)
        seen.append(outcome.program.url)
        if len(seen) > MAX_PROGRAMS:
            return Stopped("", f"loaders load each other: {' -> '.join(seen)}")
        if len(seen) > 1:
            cached = replace(cached, directory=outcome.program.url)
        yield from show(f"({outcome.program.url} starts)")
        match family:
            case "ipxe":
                drivers = outcome.program.url.rsplit("/", 1)[-1].startswith("ipxe")
                firmware = ipxe.build(platform, arch, machine.ipxe, srp=drivers)
                outcome = yield from ipxe.start(machine, firmware, cached)
            case "pxelinux" | "lpxelinux" if platform == "pcbios":
                outcome = yield from syslinux.start(machine, cached, http=family == "lpxelinux")
            case "grub" if platform == "efi":
                outcome = yield from grub.start(machine, cached)
            case _:
                break
    return outcome
