"""A memory file system that bootinfo named by a URL: the iPXE that `ask` goes on with gets a script for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bootwire.assets.scripts import MARKER, Boot, Caller, boot_script, boot_url
from bootwire.engine.lru import Lru
from bootwire.facts import BootinfoAnswered, Fact, OrderSent
from bootwire.serve.boot_scripts import Script
from bootwire.serve.bootinfo_decisions import INITRD, KERNEL, ROOM
from bootwire.serve.content import Later, Peer
from bootwire.wire import bootinfo
from bootwire.wire.bootinfo import MemoryFs
from bootwire.wire.bootinfo_text import read
from bootwire.wire.http import Request

MACHINES: Final = 4_096
VALID: Final = 120.0  # seconds from what a machine was told to its iPXE's question: a loader and a DHCP exchange

Make = Callable[[str, Request, Caller, Peer], Script | Later]


class MemoryFsScripts:
    """Makes the scripts of machines that were just told another URL than ours; `make` those of all others."""

    def __init__(self, make: Make, base: Callable[[str], str]) -> None:
        self._make = make
        self._base = base
        self._told: Lru[str, tuple[float, bootinfo.Boot]] = Lru(MACHINES)

    def note(self, fact: Fact) -> None:
        """Take a fact of the journal. Any thread."""
        match fact:
            case BootinfoAnswered(machine=machine, answer=text) | OrderSent(machine=machine, order=text) if machine:
                self._told.pop(machine)
                if text.startswith("memory http"):
                    self._told.put(machine, (time.monotonic(), read(text)))
            case _:
                pass

    def __call__(self, machine: str, request: Request, who: Caller, peer: Peer) -> Script | Later:
        """As `Scripts`."""
        told = self._told.get(machine)
        if told is None or time.monotonic() - told[0] > VALID or not isinstance(told[1].action, MemoryFs):
            return self._make(machine, request, who, peer)
        url, base = told[1].action.path.decode("utf-8", "replace"), self._base(peer.ours)
        if url.startswith(f"{base}/{ROOM}"):
            return self._make(machine, request, who, peer)
        kernel, *initrds = images(url)
        cmdline = told[1].command_line.decode("utf-8", "replace")
        boot = Boot(kernel, boot_url(base, machine, MARKER), tuple(initrds), cmdline, syslog=peer.ours)
        return Script(boot_script(boot, who.platform), f"bootinfo told it: memory {url}")


def images(url: str) -> tuple[str, ...]:
    """The kernel, and the initrd where the URL is a directory's, whose files have the names that deterboot gives them.

    A last part that begins as kernels' names do, or has a dot in it, is a kernel; else it is a directory.
    """
    last = url.rpartition("/")[2].lower()
    if "." in last or (last.startswith(("vmlinu", "bzimage", "linux", "kernel")) and not last.endswith("-mfs")):
        return (url,)
    directory = url.rstrip("/")
    return (f"{directory}/{KERNEL}", f"{directory}/{INITRD}")
