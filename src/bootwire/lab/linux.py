"""A small real Linux to boot: a distribution's kernel and static busybox, out of their packages.

Nothing is installed; the files are kept in the state directory by their digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bootwire.lab import initrd
from bootwire.lab.network import LabError
from bootwire.serve.deb import PackageError
from bootwire.serve.packages import Package, Say, fetch_package

_KERNELS = ("linux-image-cloud-{}", "linux-image-virtual", "linux-image-{}")  # Debian's smallest, Ubuntu's, Debian's


@dataclass(frozen=True, slots=True)
class Linux:
    """kernel: as the distribution ships it; busybox: static; version: of the kernel's package."""

    architecture: str
    kernel: Path
    busybox: Path
    version: str

    def initrd(self) -> bytes:
        """The initrd that prints what the kernel was given and powers off."""
        return initrd.system(self.busybox.read_bytes())


def small_linux(architecture: str, state: Path, progress: Say = lambda what, octets, whole: None) -> Linux:
    """Fetch what is not in the state directory yet. architecture: "amd64" or "arm64". Raises LabError."""
    kernel = _fetch(
        tuple(name.format(architecture) for name in _KERNELS), "boot/vmlinuz-", architecture, state, progress
    )
    busybox = _fetch(("busybox-static",), "bin/busybox", architecture, state, progress)
    return Linux(
        architecture,
        next(iter(kernel.files.values())),
        next(iter(busybox.files.values())),
        f"{kernel.name} {kernel.version}",
    )


def _fetch(names: tuple[str, ...], member: str, architecture: str, state: Path, progress: Say) -> Package:
    why = ""
    for name in names:
        try:
            return fetch_package(
                name, None, architecture, lambda path: path.removeprefix("usr/").startswith(member), state=state,
                progress=progress,
            )  # fmt: skip
        except PackageError as error:
            why = why or str(error)
    raise LabError(f"cannot fetch {names[0]} for {architecture}: {why}")
