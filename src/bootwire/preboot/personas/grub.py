"""GRUB's network images (grubnetx64.efi and the like), started by UEFI firmware.

Sources: grub grub-core/net/bootp.c, net/tftp.c, net/http.c, net/net.c (grub_net_search_config_file),
net/drivers/efi/efinet.c. Of its script language as much as boot menus of servers use; the rest is reported.
"""

from __future__ import annotations

import re
import shlex
import urllib.parse
from dataclasses import dataclass, field

from bootwire.engine import MS
from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas import pxe, syslinux
from bootwire.preboot.personas.steps import (
    Booted,
    Fetched,
    HttpGet,
    Image,
    Machine,
    NotFetched,
    Outcome,
    Started,
    Steps,
    Stopped,
    TftpGet,
    fetch,
    show,
)
from bootwire.wire import dhcp4

TFTP_WAITS = tuple((400 + 20 * n) * MS for n in range(40))  # GRUB_NET_INTERVAL, GRUB_NET_TRIES
PREFIX = "/grub"  # of Debian's grubnet images
MAX_LINES = 10_000
MAX_FILES = 64


@dataclass(slots=True)
class Menu:
    """What grub.cfg said: titles and the commands of each entry."""

    entries: list[tuple[str, list[list[str]]]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    top: list[list[str]] = field(default_factory=list)


def start(machine: Machine, cached: pxe.Cached) -> Steps[Outcome]:
    """From the firmware's DHCPACK alone (efinet.c): where a proxy named the boot file, GRUB knows nothing of it."""
    ack = cached.ack
    if ack.siaddr == dhcp.ANY:
        return Stopped("", "error: no server is specified.")
    device = _Device(machine, "tftp", ack.siaddr)
    name = ack.boot_file.decode("utf-8", "replace")
    own = "/" + name.lstrip("/").rpartition("/")[0] if "/" in name else ""
    who = ["01-" + machine.mac.hex("-"), *syslinux.addresses(machine.address)]
    names = [*(f"grub.cfg-{one}" for one in who), "grub.cfg"]
    if machine.uuid:
        names.insert(0, "grub.cfg-" + dhcp4.machine_uuid(b"\0" + machine.uuid))
    for directory in dict.fromkeys((own + PREFIX, PREFIX, own)):
        for name in names:
            got = yield from device.get(f"{directory}/{name}")
            if isinstance(got, Fetched):
                return (yield from _run(machine, device, got.data))
    return Stopped("", "grub> (no configuration was found)")


def _run(machine: Machine, device: _Device, data: bytes) -> Steps[Outcome]:
    menu = Menu(variables={"net_default_server": device.host, "net_default_ip": machine.address})
    yield from _read(menu, data, device)
    for line in menu.strange:
        yield from show(f"not understood: {line}")
    entry = _chosen(menu)
    if entry is None:
        return Stopped("", "grub> (a configuration without a menu entry)")
    return (yield from _entry(machine, device, menu, entry))


def _chosen(menu: Menu) -> list[list[str]] | None:
    """`default` is a number, a title or nothing; what stands outside of any entry boots, too, if it says `boot`."""
    if any(words[0] == "linux" for words in menu.top):
        return menu.top
    if not menu.entries:
        return None
    default = menu.variables.get("default", "0")
    if default.isdecimal():
        return menu.entries[min(int(default), len(menu.entries) - 1)][1]
    return next((commands for title, commands in menu.entries if title == default), menu.entries[0][1])


def _entry(machine: Machine, device: _Device, menu: Menu, commands: list[list[str]]) -> Steps[Outcome]:
    kernel: Image | None = None
    initrds: list[Image] = []
    cmdline = ""
    for name, *words in commands:
        expanded = [_expand(word, menu.variables) for word in words]
        if name == "set" and expanded:
            key, _, value = expanded[0].partition("=")
            menu.variables[key] = value
        elif name == "echo":
            yield from show(" ".join(expanded))
        elif name in ("linux", "linuxefi", "linux16", "initrd", "initrdefi", "initrd16", "chainloader"):
            if not expanded:
                return Stopped("", "error: filename expected.")
            files = expanded if name.startswith("initrd") else expanded[:1]
            for file in files:
                got = yield from device.get(file)
                if isinstance(got, NotFetched):
                    return Stopped("", f"error: file `{file}' not found.")
                image = pxe.image(file, device.url(file), got)
                if name == "chainloader":
                    return Started(image)
                if name.startswith("linux"):
                    kernel, cmdline = image, " ".join([f"BOOT_IMAGE={file}", *expanded[1:]])
                else:
                    initrds.append(image)
        elif name not in _IGNORED:
            yield from show(f"not understood: {' '.join([name, *words])[:256]}")
    if kernel is None:
        return Stopped("", "error: you need to load the kernel first.")
    if not pxe.is_linux(kernel.data):
        return Stopped("", "error: invalid magic number.")
    return Booted(kernel, tuple(initrds), cmdline)


_IGNORED = frozenset(("insmod", "boot", "load_video", "terminal_output", "clear", "sleep", "unset", "export", "true"))


class _Device:
    """(tftp,server) or (http,server): files by path, or by a full name of another device."""

    def __init__(self, machine: Machine, protocol: str, host: str) -> None:
        self._machine, self.protocol, self.host = machine, protocol, host

    def url(self, name: str) -> str:
        protocol, host, path = self._where(name)
        return f"{protocol}://{host}/{path.lstrip('/')}"

    def get(self, name: str) -> Steps[Fetched | NotFetched]:
        protocol, host, path = self._where(name)
        if protocol == "http":
            headers = (("Host", host), ("User-Agent", "GRUB 2.06"))
            got = yield from fetch(self._machine, HttpGet(f"http://{host}{urllib.parse.quote(path)}", headers))
            return NotFetched("status", got.status) if isinstance(got, Fetched) and got.status >= 300 else got
        wanted = ((b"blksize", b"1024"), (b"tsize", b"0"))
        name = re.sub("//+", "/", path).lstrip("/")
        return (yield from fetch(self._machine, TftpGet(host, name.encode(), wanted, TFTP_WAITS)))

    def _where(self, name: str) -> tuple[str, str, str]:
        match = re.fullmatch(r"\((tftp|http|pxe)(?:[,:]([^)]*))?\)(.*)", name)
        if match is None:
            return self.protocol, self.host, "/" + name.lstrip("/")
        protocol = "tftp" if match[1] == "pxe" else match[1]
        return protocol, match[2] or self.host, "/" + match[3].lstrip("/")


def _read(menu: Menu, data: bytes, device: _Device, files: int = 0) -> Steps[None]:
    """Menu entries with their commands, assignments, and files read in (source, configfile)."""
    entry: list[list[str]] | None = None
    depth = 0
    for line in data.decode("utf-8", "replace").replace("\\\n", " ").splitlines()[:MAX_LINES]:
        words = _words(line)
        if not words:
            continue
        if words[0] == "submenu":
            depth += 1
        elif words[0] == "menuentry" and words[-1] == "{" and len(words) > 2:
            entry = []
            menu.entries.append((words[1], entry))
        elif words[0] == "}":
            depth, entry = (depth - 1, None) if entry is None and depth else (depth, None)
        elif entry is not None:
            entry.append(words)
        elif words[0] == "set" and len(words) > 1:
            key, _, value = words[1].partition("=")
            menu.variables[key] = _expand(value, menu.variables)
        elif words[0] in ("source", "configfile") and len(words) > 1 and files < MAX_FILES:
            got = yield from device.get(_expand(words[1], menu.variables))
            if isinstance(got, Fetched):
                yield from _read(menu, got.data, device, files + 16)
        elif words[0] in ("linux", "linuxefi", "initrd", "initrdefi", "echo", "chainloader"):
            menu.top.append(words)
        elif words[0] not in _IGNORED:
            menu.strange.append(line.strip()[:256])


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return [line.strip()]


def _expand(word: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", lambda match: variables.get(match[1], ""), word)
