"""PXELINUX configurations: the text that tells lpxelinux.0 and syslinux.efi what to fetch and start.

One directive a line, words to its end (syslinux doc/syslinux.txt, com32/elflink/ldlinux/readconfig.c); nothing is
looked up in them. White space and control characters are one space, so no text can become a second directive.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_LINE = 2047  # octets of a line that it keeps (MAX_CMDLINE_LEN of com32/elflink/ldlinux/readconfig.c is 2048)
MAX_NAME = 255  # octets of a file name or URL (FILENAME_MAX, core/include/fs.h)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is started: URLs of at most MAX_NAME octets. initrds: in order; message: shown first, one line each."""

    kernel: str
    initrds: tuple[str, ...] = ()
    cmdline: str = ""
    message: str = ""


def config(entry: Entry) -> bytes:
    """The configuration that starts it at once. Raises ValueError where PXELINUX could not take a line."""
    lines = ["DEFAULT bootwire", "PROMPT 0", "NOESCAPE 1"]
    lines += [f"SAY {_words(line)}" for line in entry.message.splitlines()[:24] if line.strip()]
    lines += ["LABEL bootwire", f"  LINUX {_name(entry.kernel)}"]
    if entry.initrds:
        lines.append(f"  INITRD {','.join(_name(url) for url in entry.initrds)}")
    if cmdline := _words(entry.cmdline):
        lines.append(f"  APPEND {cmdline}")
    if long := next((line for line in lines if len(line.encode()) > MAX_LINE), ""):
        raise ValueError(f"PXELINUX takes lines of {MAX_LINE} octets, and {long.split()[0]} would be longer")
    return "\n".join([*lines, ""]).encode("utf-8", "replace")


def go_on(because: str) -> bytes:
    """The configuration that gives the machine back to its firmware, which goes on with its own disk."""
    lines = ["DEFAULT disk", "PROMPT 0", f"SAY Bootwire: {_words(because)[:200]}", "LABEL disk", "  LOCALBOOT -1", ""]
    return "\n".join(lines).encode("utf-8", "replace")


def _words(text: str) -> str:
    return " ".join("".join(" " if ord(c) < 0x20 or ord(c) == 0x7F else c for c in text).split())


def _name(url: str) -> str:
    if len(url.encode()) > MAX_NAME or not url or any(c.isspace() or c == "," for c in url):
        raise ValueError(f"PXELINUX takes names of {MAX_NAME} octets without blanks and commas, not {url[:80]!r}")
    return url
