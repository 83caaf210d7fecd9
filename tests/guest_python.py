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
_LIBRARIES = "lib/x86_64-linux-gnu"
_PACKAGES = {  # package: what is taken of it
    "python3.11-minimal": r"usr/bin/python3.11",
    "libpython3.11-minimal": r"usr/lib/python3.11/.*\.py",
    "libpython3.11-stdlib": r"usr/lib/python3.11/(?!(test|lib2to3|idlelib|pydoc_data|asyncio|distutils)/).*\.(py|so)",
    "libc6": rf"{_LIBRARIES}/(libc|libm|ld-linux-x86-64)\.so\.\d",
    "zlib1g": rf"{_LIBRARIES}/libz\.so.*",
    "libexpat1": rf"{_LIBRARIES}/libexpat\.so.*",
    "libffi8": rf"usr/{_LIBRARIES}/libffi\.so.*",
    "liblzma5": rf"{_LIBRARIES}/liblzma\.so.*",
    "libbz2-1.0": rf"{_LIBRARIES}/libbz2\.so.*",
}

_PREPARE = """#!/usr/bin/python3.11 -B
import ctypes, os, sys
libc = ctypes.CDLL(None)
for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")):
    os.makedirs(place, exist_ok=True)
    libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None)
console = os.open("/dev/console", os.O_RDWR)
for number in range(3):
    os.dup2(console, number)
open("/proc/sys/kernel/printk", "w").write("1")
sys.path.insert(0, "/src")
try:
    exec(compile(open("/main.py").read(), "/main.py", "exec"))
except BaseException as error:
    import traceback
    print("guest failed:", "".join(traceback.format_exception(error)).replace("\\n", " | "), flush=True)
libc.reboot(ctypes.c_int(0x01234567))
"""


def initrd(state: Path, main: str) -> bytes:
    """An initrd (gzip) that runs the Python text `main` in the machine, with `bootwire` importable, then resets it."""
    files: dict[str, bytes] = {"init": _PREPARE.encode(), "main.py": main.encode()}
    for package, wanted in _PACKAGES.items():
        found = fetch_package(
            package, "bookworm", "amd64", lambda path, wanted=wanted: bool(re.fullmatch(wanted, path)), state=state
        )
        for name, path in found.files.items():
            files |= dict.fromkeys(_sonames(name), path.read_bytes())
    files["lib64/ld-linux-x86-64.so.2"] = files.pop(f"{_LIBRARIES}/ld-linux-x86-64.so.2")
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
