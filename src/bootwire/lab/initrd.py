"""A small real userland for a test kernel: an initrd made of busybox and one script.

Its `/init` prints what the kernel was given, on lines that begin with `bootwire-lab:` (see `MARK`), and powers off:

    bootwire-lab: cmdline console=ttyS0 token=1
    bootwire-lab: file /bootwire/second.txt: what it says
    bootwire-lab: done
"""

from __future__ import annotations

import gzip
import io
import stat
from collections.abc import Iterable
from dataclasses import dataclass

MARK = "bootwire-lab:"

_INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
echo "{MARK} cmdline $(/bin/busybox cat /proc/cmdline)"
for file in /bootwire/*; do
    [ -f "$file" ] && echo "{MARK} file $file: $(/bin/busybox cat "$file")"
done
echo "{MARK} done"
/bin/busybox poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive. name: without a leading slash; mode: file type and permissions (stat.S_IF*)."""

    name: str
    mode: int
    data: bytes = b""


def cpio(entries: Iterable[Entry]) -> bytes:
    """An archive in cpio's "newc" form, as Linux unpacks into its root (Documentation/driver-api/early-userspace/
    buffer-format.rst): 110 octets of header in hexadecimal, name and data each padded to four octets.
    """
    out = io.BytesIO()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (header + name, entry.data):
            out.write(part + bytes(-len(part) % 4))
    return out.getvalue()


def system(busybox: bytes) -> bytes:
    """The initrd described above (gzip), around a static busybox for the machine's architecture."""
    entries = [_directory("bin"), _file("bin/busybox", busybox), _file("init", _INIT.encode())]
    return gzip.compress(cpio(entries), compresslevel=6, mtime=0)


def extra(files: dict[str, str]) -> bytes:
    """A second initrd (gzip) whose files the first one's `/init` prints: names below /bootwire, a line of text each."""
    entries = [_directory("bootwire"), *(_file(f"bootwire/{name}", text.encode()) for name, text in files.items())]
    return gzip.compress(cpio(entries), compresslevel=6, mtime=0)


def _directory(name: str) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o755)


def _file(name: str, data: bytes) -> Entry:
    return Entry(name, stat.S_IFREG | 0o755, data)
