"""Boot programs as they are served: ours and the operator's, with their parameters filled in on the way out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bootwire.assets import pe
from bootwire.assets.catalog import Blob, Transformed
from bootwire.policy.decide import LOADERS
from bootwire.programs import parameters
from bootwire.programs.build import BIOS, EFI_TOOLS, OURS, efi_program
from bootwire.programs.parameters import Fallback, Parameters
from bootwire.serve.mode import StartError

HEAD: Final = 4_096  # octets that tell an EFI program from one for BIOS


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    """What the operator chose.

    program   "hello", "ask", a file, or "" for none before the loader
    next      TFTP name of the network program after it, "" for the best loader at hand
    fallback tries   as `Parameters` has them
    """

    program: str = ""
    next: str = ""
    fallback: Fallback = "next-device"
    tries: int = 5


@dataclass(frozen=True, slots=True)
class Programs:
    """name: of the chosen program as `Offerings.program` has it; catalog: all that can be served, by catalog name."""

    name: str
    catalog: Mapping[str, Blob]
    own: bool = False  # the operator's: somebody is writing it

    @property
    def names(self) -> frozenset[str]:
        """Catalog names."""
        return frozenset(self.catalog)


def programs(settings: ProgramSettings, loaders: Mapping[str, object]) -> Programs:
    """All that can be served. loaders: catalog names of those at hand. Raises StartError (status 2)."""
    filled = Parameters(next=settings.next, fallback=settings.fallback, tries=settings.tries)
    try:
        parameters.fill(bytes(4) + parameters.MAGIC.ljust(256, b"\0"), filled)
    except ValueError as error:
        raise StartError(f"--program: {error}", 2) from None
    catalog = {}
    for platform in ("bios", *EFI_TOOLS):
        chosen = settings.next if settings.next.endswith(".efi") == (platform != "bios") else ""
        following = chosen or next((name for name in LOADERS[platform] if name in loaders), "")
        for name in OURS:
            served = f"programs/{platform}/{name}.{'pxe' if platform == 'bios' else 'efi'}"
            path = BIOS / f"{name}.pxe" if platform == "bios" else efi_program(name, platform)
            catalog[served] = _blob(served, path, replace(filled, next=following))
    if settings.program in ("", *OURS):
        return Programs(settings.program, catalog)
    path = Path(settings.program)
    platform = _platform(path)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in path.stem) or "program"
    if name in OURS:
        name += "-own"
    following = settings.next or next((name for name in LOADERS.get(platform, ()) if name in loaders), "")
    served = f"programs/{platform}/{name}{'.pxe' if platform == 'bios' else '.efi'}"
    blob = _blob(served, path.absolute(), replace(filled, next=following))
    return Programs(name, {**catalog, blob.name: blob}, own=True)


def _blob(name: str, path: Path, filled: Parameters) -> Blob:
    return Blob(name, -1, Transformed(str(path), parameters.LARGEST, lambda octets: parameters.fill(octets, filled)))


def _platform(path: Path) -> str:
    """Loader directory of the machines that run this file."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        what = f"cannot read the program {path}: {error.strerror}"
        raise StartError(f"{what}\n  try  --program hello, --program ask, or a file that is there", 2) from None
    if head.startswith(b"MZ") and (image := pe.read(head)) is not None:
        return image.architecture
    if not 0 < size <= parameters.LARGEST:
        raise StartError(
            f"{path} has {size} octets; a BIOS network program has 1 to {parameters.LARGEST} (PXE-E79 above)", 2
        )
    return "bios"
