"""A Linux userland for a virtual machine in which this checkout's own code runs: Debian's Python and our src tree.

Nothing is installed; everything comes out of Debian 12's packages, unpacked by `bootwire.serve.packages`.
"""

from __future__ import annotations

import gzip
import re
import stat
from pathlib import Path

from bootwire.lab.initrd import Entry, cpio
from bootwire.serve.packages import fetch_package

SRC = Path(__file__).parents[1] / "src"
_TRIPLETS = {  # Debian's architecture: where libraries are; where programs look for the dynamic linker
    "amd64": ("x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"),
    "arm64": ("aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"),
}
_PACKAGES = {  # package: what is taken of it; LIB stands for the directory of libraries
    "python3.11-minimal": r"usr/bin/python3.11",
    "libpython3.11-minimal": r"usr/lib/python3.11/.*\.(py|so)",
    "libpython3.11-stdlib": r"usr/lib/python3.11/(?!(test|lib2to3|idlelib|pydoc_data|distutils)/).*\.(py|so)",
    "libc6": r"LIB/(libc|libm|ld-linux-[a-z0-9-]+)\.so\.\d",
    "zlib1g": r"LIB/libz\.so.*",
    "libexpat1": r"LIB/libexpat\.so.*",
    "libffi8": r"usr/LIB/libffi\.so.*",
    "liblzma5": r"LIB/liblzma\.so.*",
    "libbz2-1.0": r"LIB/libbz2\.so.*",
    "libssl3": r"usr/LIB/lib(ssl|crypto)\.so.*",
}

_PREPARE = """#!/usr/bin/python3.11 -B
import ctypes, os, sys
libc = ctypes.CDLL(None)
mounts = {"proc": "/proc", "sysfs": "/sys", "securityfs": "/sys/kernel/security", "devtmpfs": "/dev", "tmpfs": "/tmp"}
for kind, place in mounts.items():
    if not place.startswith("/sys/"): os.makedirs(place, exist_ok=True)
    libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None)
console = os.open("/dev/console", os.O_RDWR)
for number in range(3):
    os.dup2(console, number)
open("/proc/sys/kernel/printk", "w").write("1")
sys.path.insert(0, "/src")
try:
    exec(compile(open("/main.py").read(), "/main.py", "exec"))
except SystemExit:
    pass
except BaseException as error:
    import traceback
    print("guest failed:", "".join(traceback.format_exception(error)).replace("\\n", " | "), flush=True)
libc.reboot(ctypes.c_int(0x01234567))
"""


def initrd(state: Path, main: str, architecture: str = "amd64") -> bytes:
    """An initrd (gzip) that runs the Python text `main` in the machine, with `bootwire` importable, then resets it."""
    files: dict[str, bytes] = {"init": _PREPARE.encode(), "main.py": main.encode()}
    triplet, linker = _TRIPLETS[architecture]
    for package, pattern in _PACKAGES.items():
        wanted = re.compile(pattern.replace("LIB", f"lib/{triplet}"))
        found = fetch_package(
            package, "bookworm", architecture, lambda path, wanted=wanted: bool(wanted.fullmatch(path)), state=state
        )
        for name, path in found.files.items():
            files |= dict.fromkeys(_sonames(name), path.read_bytes())
    files[linker] = files.pop(f"lib/{triplet}/{Path(linker).name}")
    for path in sorted(SRC.rglob("*.py")):
        files[f"src/{path.relative_to(SRC)}"] = path.read_bytes()
    return gzip.compress(archive(files), compresslevel=1, mtime=0)


def archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive of executable files, with their directories."""
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in sorted(folders)]
    return cpio([*entries, *(Entry(name, stat.S_IFREG | 0o755, data) for name, data in files.items())])


def _sonames(path: str) -> list[str]:
    """All names the dynamic linker may look for: libbz2.so.1.0.4 may be wanted as libbz2.so.1.0 or libbz2.so.1."""
    stem, so, version = path.partition(".so.")
    numbers = version.split(".")
    return [stem + so + ".".join(numbers[:count]) for count in range(1, len(numbers) + 1)]
