"""Builds boot programs with Debian's gcc and binutils: `python -m bootwire.programs.build` makes ours anew.

`python -m bootwire.programs.build FILE.c` or `FILE.S` makes FILE.pxe beside it, linked with what `bios/boot.h` offers.
The built octets of our own stand beside their sources, so that serving needs no compiler; a test builds them again and
compares.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bootwire.programs.efi_image import convert

BIOS: Final = Path(__file__).with_name("bios")
EFI: Final = Path(__file__).with_name("efi")
OURS: Final = ("hello", "ask")
LIBRARY: Final = ("text.c", "machine.c", "pxe.c", "disk.c", "ends.c", "report.c")

# -m16: 32-bit code that runs in real mode (GCC manual, x86 options); -march=i386: for the oldest that boot by PXE
FLAGS: Final = (
    "-m16", "-march=i386", "-Os", "-ffreestanding", "-fno-builtin", "-fno-pic", "-fno-pie", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-mno-sse", "-mno-mmx", "-mpreferred-stack-boundary=2",
    "-mregparm=3", "-ffunction-sections", "-fdata-sections", "-fno-ident", "-Wall", "-Wextra", "-Werror",
    "-Wno-missing-field-initializers",
)  # fmt: skip

# -mgeneral-regs-only: the firmware's stack need not be aligned for more
EFI_FLAGS: Final = (
    "-Os", "-ffreestanding", "-fno-builtin", "-fpie", "-fshort-wchar", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-mgeneral-regs-only", "-fno-ident", "-fno-jump-tables", "-Wall", "-Wextra",
    "-Werror",
)  # fmt: skip
EFI_TOOLS: Final = {  # architecture -> prefix of its tools, their Debian package, more flags
    "x86_64": ("x86_64-linux-gnu-", "gcc-x86-64-linux-gnu", ("-mno-red-zone", "-fcf-protection=none")),
    "arm64": ("aarch64-linux-gnu-", "gcc-aarch64-linux-gnu", ("-mstrict-align", "-mno-outline-atomics")),
}


class BuildError(Exception):
    """What the compiler or the linker said."""


def build(source: Path) -> bytes:
    """The program that `source` makes. Raises BuildError.

    A C file is linked with start.S and the library, and begins with its function `program`. An assembler file (.S) is
    the whole program, and begins at 0000:7C00 with its first octet.
    """
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory, "program.pxe")
        if source.suffix == ".S":
            objects = [_compile(source, Path(directory))]
            _run(
                "ld", "-m", "elf_i386", "-Ttext", "0x7C00", "--oformat", "binary", "-e", "0x7C00", "-o", made, *objects
            )
        else:
            parts = [BIOS / "start.S", source, *(BIOS / name for name in LIBRARY)]
            objects = [_compile(part, Path(directory)) for part in parts]
            _run("ld", "-m", "elf_i386", "-T", BIOS / "program.ld", "--gc-sections", "-o", made, *objects)
        return made.read_bytes()


def build_efi(source: Path, architecture: str) -> bytes:
    """The EFI application that a C file makes for "x86_64" or "arm64", with efi/boot.c. Raises BuildError."""
    tools, package, more = EFI_TOOLS[architecture]
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory, "program.elf")
        objects = []
        for part in (source, EFI / "boot.c"):
            objects.append(Path(directory, f"{part.stem}.o"))
            _run(f"{tools}gcc", *EFI_FLAGS, *more, "-I", EFI, "-c", part, "-o", objects[-1], package=package)
        options = ("-static", "-q", "--build-id=none", "-z", "max-page-size=4096", "--no-warn-rwx-segments")
        _run(f"{tools}ld", *options, "-T", EFI / "program.ld", "-o", made, *objects, package=package)
        try:
            return convert(made.read_bytes())
        except ValueError as error:
            raise BuildError(str(error)) from None


def main(arguments: list[str]) -> int:
    """Build what is named, or our own. Returns the exit status."""
    sources = [Path(name) for name in arguments] or [BIOS / f"{name}.c" for name in OURS]
    for source in sources:
        try:
            octets = build(source)
        except BuildError as error:
            sys.stderr.write(f"error: {source}: {error}\n")
            return 1
        made = source.with_suffix(".pxe")
        made.write_bytes(octets)
        sys.stdout.write(f"{made}  {len(octets)} octets\n")
    return 0 if arguments else _our_efi()


def _our_efi() -> int:
    for name in OURS:
        for architecture in EFI_TOOLS:
            try:
                octets = build_efi(EFI / f"{name}.c", architecture)
            except BuildError as error:
                sys.stderr.write(f"error: {name} for {architecture}: {error}\n")
                return 1
            made = efi_program(name, architecture)
            made.write_bytes(octets)
            sys.stdout.write(f"{made}  {len(octets)} octets\n")
    return 0


def efi_program(name: str, architecture: str) -> Path:
    """Where the built octets of one of ours are."""
    return EFI / f"{name}.{architecture}.efi"


def _compile(source: Path, directory: Path) -> Path:
    made = directory / f"{source.stem}.o"
    _run("gcc", *FLAGS, "-I", BIOS, "-c", source, "-o", made)
    return made


def _run(*argv: str | Path, package: str = "gcc") -> None:
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"{argv[0]} is missing\n  try  apt-get install {package} binutils") from None
    if done.returncode:
        raise BuildError(f"{argv[0]} says:\n{done.stderr}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
