"""This very machine: what it is, what memory it has, and the system calls that put another kernel in its place.

kexec_file_load(2), kexec_load(2) and reboot(2) by ctypes. Everything that can be known beforehand is checked before
the first of them; a refusal leaves the system as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bootwire.preboot.handoff.refusal import HandoffError

ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64", "riscv64": "riscv64"}  # uname(2) -> `buildarch`
MAX_SEGMENTS = 16  # KEXEC_SEGMENT_MAX, include/linux/kexec.h
PAGE = 4096

_FILE_LOAD = {"x86_64": 320, "aarch64": 294, "riscv64": 294}  # arch/x86/entry/syscalls, asm-generic/unistd.h
_LOAD = {"x86_64": 246, "aarch64": 104}
_FILE_UNLOAD, _NO_INITRAMFS = 1, 4  # include/uapi/linux/kexec.h, KEXEC_FILE_*
_ARCH = {"x86_64": 62 << 16, "aarch64": 183 << 16}  # include/uapi/linux/kexec.h, KEXEC_ARCH_*
_REBOOT_KEXEC = 0x45584543  # LINUX_REBOOT_CMD_KEXEC
_CAP_SYS_BOOT = 1 << 22
_LOADED = Path("/sys/kernel/kexec_loaded")
_MEMORY_TYPES = {  # arch/x86/kernel/e820.c, e820_type_to_string; E820 numbers of ACPI 6.4 table 15.1
    "System RAM": 1, "ACPI Tables": 3, "ACPI Non-volatile Storage": 4, "Unusable memory": 5,
    "Persistent Memory": 7, "Persistent Memory (legacy)": 12,
}  # fmt: skip


class NoSuchCall(HandoffError):
    """The running kernel lacks this system call; another may do."""


def architecture() -> str:
    """Of the running kernel, as `buildarch` says it."""
    name = os.uname().machine
    return ARCHITECTURES.get(name, name)


def check(wanted: str, by_file: bool) -> None:
    """Raise HandoffError if a kernel for this architecture cannot be loaded here. by_file: with kexec_file_load."""
    if wanted != architecture():
        raise HandoffError(f"the kernel is for {wanted}, this machine is {architecture()}", _OTHER)
    if os.uname().machine not in (_FILE_LOAD if by_file else _LOAD):
        raise HandoffError(f"this way of starting kernels is not known for {architecture()}", _OTHER)
    if not _LOADED.exists():
        raise HandoffError("the running kernel was built without kexec, or /sys is not mounted", _OTHER)
    if not _capable():
        raise HandoffError("only root may replace the running kernel (CAP_SYS_BOOT)", "run this as root, or " + _OTHER)
    if _text("/proc/sys/kernel/kexec_load_disabled") == "1":
        raise HandoffError("kexec was switched off until the next reboot (kernel.kexec_load_disabled = 1)", _OTHER)
    if not by_file and (mode := lockdown()) not in ("", "none"):
        raise HandoffError(f"the kernel is locked down ({mode}) and takes signed kernels only", _LOCKED)


def lockdown() -> str:
    """The mode of kernel_lockdown(7): none, integrity, confidentiality; "" if the kernel has no such thing."""
    modes = _text("/sys/kernel/security/lockdown")
    return modes.partition("[")[2].partition("]")[0]


def loaded() -> bool:
    """Whether a kernel is loaded and waits to be started."""
    return _text(str(_LOADED)) == "1"


def load_files(kernel: bytes, initrd: bytes, command_line: str) -> None:
    """kexec_file_load(2): the kernel checks and arranges everything. Raises HandoffError."""
    text = command_line.encode() + b"\0"
    with _file(kernel) as kernel_fd, _file(initrd) as initrd_fd:
        flags = 0 if initrd else _NO_INITRAMFS
        _call(
            _FILE_LOAD[os.uname().machine], ctypes.c_int(kernel_fd), ctypes.c_int(initrd_fd if initrd else -1),
            ctypes.c_ulong(len(text)), ctypes.c_char_p(text), ctypes.c_ulong(flags),
        )  # fmt: skip


def load_segments(entry: int, segments: Sequence[tuple[int, bytes]]) -> None:
    """kexec_load(2): octets by page-aligned physical address, entered at `entry`. Raises HandoffError.

    All of it must lie in memory that is free for use (see `memory`).
    """
    if len(segments) > MAX_SEGMENTS:
        raise HandoffError(f"{len(segments)} pieces are more than kexec takes ({MAX_SEGMENTS})", _OTHER)
    free = [(base, base + length) for base, length, kind in memory() if kind == 1]
    for at, data in segments:
        if not any(start <= at and at + len(data) <= end for start, end in _joined(free)):
            raise HandoffError(f"the memory at {at:#x} that this kernel needs is not free on this machine", _OTHER)
    table = (_Segment * len(segments))()
    kept = []
    for row, (at, data) in zip(table, segments, strict=True):
        buffer = ctypes.create_string_buffer(data, len(data))
        kept.append(buffer)
        row.buffer, row.buffer_size = ctypes.addressof(buffer), len(data)
        row.at, row.size = at, -(-len(data) // PAGE) * PAGE
    _call(
        _LOAD[os.uname().machine], ctypes.c_ulong(entry), ctypes.c_ulong(len(segments)), table,
        ctypes.c_ulong(_ARCH[os.uname().machine]),
    )  # fmt: skip


def unload() -> None:
    """Forget a loaded kernel; nothing happens if there is none. Raises HandoffError."""
    if not loaded():
        return
    name = os.uname().machine
    if name in _LOAD:
        _call(_LOAD[name], ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_void_p(None), ctypes.c_ulong(0))
    else:
        nothing = (ctypes.c_int(-1), ctypes.c_int(-1), ctypes.c_ulong(0), ctypes.c_char_p(None))
        _call(_FILE_LOAD[name], *nothing, ctypes.c_ulong(_FILE_UNLOAD))


def start() -> None:
    """Start the loaded kernel: in good order where systemd runs, else at once after writing files back.

    Returns only where systemd takes a moment to end everything. Raises HandoffError.
    """
    if not loaded():
        raise HandoffError("no kernel is loaded", "load one first")
    if os.path.isdir("/run/systemd/system") and shutil.which("systemctl"):
        done = subprocess.run(["systemctl", "kexec"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise HandoffError(f"systemctl kexec failed: {done.stderr.strip()}", "see its message")
        return
    os.sync()
    ctypes.set_errno(0)
    _LIBC.reboot(ctypes.c_int(_REBOOT_KEXEC))
    raise HandoffError(f"the kernel did not start the other one: {os.strerror(ctypes.get_errno())}", _OTHER)


def memory() -> list[tuple[int, int, int]]:
    """The memory map: (base, length, E820 type), ascending. Empty where it is not told.

    On x86 it is the firmware's; elsewhere the kernel's, without what it keeps reserved.
    """
    found = []
    for entry in Path("/sys/firmware/memmap").glob("*"):
        values = [_text(str(entry / name)) for name in ("start", "end", "type")]
        if values[0] and values[1]:
            base, last = int(values[0], 16), int(values[1], 16)
            found.append((base, last + 1 - base, _MEMORY_TYPES.get(values[2], 2)))
    return sorted(found) or read_iomem(_text("/proc/iomem"))


def read_iomem(text: str) -> list[tuple[int, int, int]]:
    """Memory in /proc/iomem: "System RAM" is type 1, less the parts marked "reserved". Zeros mean: not for you."""
    ram: list[tuple[int, int]] = []
    for line in text.splitlines():
        places, _, name = line.partition(" : ")
        first, _, last = places.strip().partition("-")
        start, end = int(first, 16), int(last, 16) + 1
        if name == "System RAM" and not line.startswith(" ") and end > 1:
            ram.append((start, end))
        elif name == "reserved" and ram:
            base, top = ram.pop()
            ram += [part for part in ((base, min(start, top)), (max(end, base), top)) if part[0] < part[1]]
    return [(start, end - start, 1) for start, end in ram]


def device_tree() -> bytes:
    """The running kernel's flattened device tree, empty where it has none or does not tell."""
    try:
        return Path("/sys/firmware/fdt").read_bytes()
    except OSError:
        return b""


def acpi_root() -> int:
    """Physical address of the ACPI root pointer on a machine with UEFI, 0 where a kernel finds it by itself."""
    values = dict(line.partition("=")[::2] for line in _text("/sys/firmware/efi/systab").splitlines())
    address = values.get("ACPI20") or values.get("ACPI") or "0"
    return int(address, 16)


def screen() -> bytes:
    """`screen_info` of this machine's own boot_params, empty where it is not told."""
    try:
        return Path("/sys/kernel/boot_params/data").read_bytes()[:64]
    except OSError:
        return b""


_OTHER = "start it in QEMU, or save it and boot it another way"
_LOCKED = "use a kernel signed by a key that this machine trusts, or turn Secure Boot off in the firmware"
_ERRORS = {
    errno.EPERM: ("the kernel forbids it", "run this as root; a container needs CAP_SYS_BOOT and its seccomp profile"),
    errno.ENOEXEC: ("the running kernel does not recognise this as a kernel it can start", _OTHER),
    errno.EKEYREJECTED: ("the kernel's signature was rejected", _LOCKED),
    errno.ENOKEY: ("the kernel is signed by a key that this machine does not trust", _LOCKED),
    errno.ENODATA: ("the kernel is not signed, and this machine takes signed ones only", _LOCKED),
    errno.EBADMSG: ("the kernel's signature does not match it", "download or copy it again"),
    errno.ENOMEM: ("there is not enough memory", "free some, or use a smaller initrd"),
    errno.EBUSY: ("somebody else loads a kernel at this moment, or a crash kernel is in the way", "try again"),
    errno.EADDRNOTAVAIL: ("the memory that this kernel needs is not free on this machine", _OTHER),
    errno.ENOSYS: ("the running kernel was built without this system call", _OTHER),
    errno.EINVAL: ("the running kernel does not take this kernel, initrd or command line", _OTHER),
}


class _Segment(ctypes.Structure):
    """struct kexec_segment, include/uapi/linux/kexec.h"""

    _fields_ = [
        ("buffer", ctypes.c_void_p), ("buffer_size", ctypes.c_size_t),
        ("at", ctypes.c_size_t), ("size", ctypes.c_size_t),
    ]  # fmt: skip


_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> None:
    if _LIBC.syscall(ctypes.c_long(number), *arguments) < 0:
        code = ctypes.get_errno()
        because, fix = _ERRORS.get(code, ("it failed", _OTHER))
        if code == errno.EPERM and (mode := lockdown()) not in ("", "none"):
            because, fix = f"the kernel is locked down ({mode}) and takes signed kernels only", _LOCKED
        kind = NoSuchCall if code == errno.ENOSYS else HandoffError
        raise kind(f"{because} ({errno.errorcode.get(code, code)}: {os.strerror(code)})", fix)


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[int]:
    """A file in memory, open for reading alone: the system call wants nobody to be able to write to it (ETXTBSY)."""
    writing = os.memfd_create("bootwire", os.MFD_CLOEXEC)
    try:
        reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(writing, view[: 1 << 30]) :]
        except BaseException:
            os.close(reading)
            raise
    finally:
        os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _capable() -> bool:
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_SYS_BOOT)
    return os.geteuid() == 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""
