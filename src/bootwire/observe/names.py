"""What a file is for, by the name it is asked for: what loaders try, what they need."""

from __future__ import annotations

_LOADER_ENDINGS = (".efi", ".kpxe", ".kkpxe", ".pxe", ".0")
_FIRMWARE_FILES = ("bootcode.bin", "start4.elf", "start.elf", "nbp")
_OPTIONAL = (
    "revocations", "shim_certificate", "pxelinux.cfg", "grub.cfg", "command.lst", "fs.lst", "crypto.lst",
    "terminal.lst", "/grub/", "autoexec.ipxe", "ldlinux",
    "recovery.elf", "bootcode.bin", "dt-blob.bin", "config.txt", "bootsig", "start_x", "start_db", "start_cd", "fixup",
    "pieeprom",
)  # fmt: skip


def stage_of(name: str) -> str:
    """What a file is for, by the name it is served under: program, loader, script, kernel, initrd, or "" for others."""
    if name.startswith("programs/") or "/programs/" in name:
        return "program"
    if name == "kernel" or name.endswith("/kernel"):
        return "kernel"
    if name == "initrd" or "initrd/" in name:
        return "initrd"
    if name.endswith(".ipxe"):
        return "script"
    last = name.lower().rpartition("/")[2]
    if last.endswith(_LOADER_ENDINGS) or last in _FIRMWARE_FILES:
        return "loader"
    if last.startswith(("vmlinuz", "linux", "bzimage")):
        return "kernel"
    return "initrd" if last.startswith("initr") else ""


def optional(name: str) -> bool:
    """Whether loaders try this name and do without it: shim 16, PXELINUX, GRUB, Raspberry Pi's boot ROM."""
    return any(part in name for part in _OPTIONAL)
