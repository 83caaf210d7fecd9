"""PXELINUX: its search for a configuration, the configuration, and what that boots. U-Boot reads the same files.

Sources: syslinux core/fs/pxe (pxe.c, tftp.c), com32/elflink/ldlinux/readconfig.c, doc/pxelinux.txt; what U-Boot does
otherwise: boot/pxe_utils.c.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bootwire.engine import Ns, S
from bootwire.preboot.personas import pxe
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
from bootwire.wire.dhcp4 import Message

TICK: Ns = S * 10 // 182  # the BIOS timer's
_TICKS = (2, 2, 3, 3, 4, 5, 6, 7, 9, 10, 12, 15, 18, 21, 26, 31, 37, 44, 53, 64, 77, 92, 110, 132, 159, 191, 229, 255)
TFTP_WAITS = tuple(TICK * ticks for ticks in _TICKS)
"""TimeoutTable of core/fs/pxe/tftp.c."""

MAX_FILES = 64  # configurations and their INCLUDEs
MAX_LABELS = 1024

Get = Callable[[str], Steps[Fetched | NotFetched]]


@dataclass(slots=True)
class Label:
    """One LABEL. kind: "linux" (and the old "kernel"), "localboot", or another directive's name."""

    name: str
    kind: str = ""
    file: str = ""
    append: str | None = None
    initrds: tuple[str, ...] = ()


@dataclass(slots=True)
class Config:
    """What the files said. strange: lines that were not understood."""

    default: str = ""
    append: str = ""
    labels: list[Label] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def start(machine: Machine, cached: pxe.Cached, *, http: bool = False) -> Steps[Outcome]:
    """pxelinux.0 with what the ROM left it; http: lpxelinux.0, which takes URLs."""
    message = cached.proxy or cached.ack
    prefix = _text(message.option(dhcp4.PXELINUX_PREFIX) or cached.ack.option(dhcp4.PXELINUX_PREFIX))
    directory = prefix or cached.directory.rsplit("/", 1)[0] + "/"
    if not directory.startswith(("tftp://", "http://")):
        directory = f"tftp://{message.siaddr}/{directory.lstrip('/')}"

    def get(name: str) -> Steps[Fetched | NotFetched]:
        return get_file(machine, directory, name, b"1408", TFTP_WAITS, http=http)

    library = yield from get("ldlinux.c32")
    if isinstance(library, NotFetched):
        return Stopped("", "Failed to load ldlinux.c32")
    named = _text(message.option(dhcp4.PXELINUX_CONFIG))
    config = yield from search(get, [*([named] if named else []), *_places(machine)])
    if config is None:
        return Stopped("", "Unable to locate configuration file")
    return (yield from boot(machine, config, get))


def boot(machine: Machine, config: Config, get: Get) -> Steps[Outcome]:
    """The default label with nobody at the keyboard."""
    for line in config.strange:
        yield from show(f"not understood: {line}")
    label = next((one for one in config.labels if one.name == config.default), None)
    if label is None and config.labels:
        label = config.labels[0]
    if label is None:
        return Stopped("", "No DEFAULT or UI configuration directive found!")
    if label.kind == "localboot":
        return Stopped("", "Booting from local disk...")
    append = config.append if label.append is None else "" if label.append == "-" else label.append
    words = append.split()
    initrds = [name for word in words if word.startswith("initrd=") for name in word[7:].split(",")]
    kernel = yield from _image(get, label.file)
    if isinstance(kernel, Stopped):
        return kernel
    if label.kind not in ("linux", "kernel") or not pxe.is_linux(kernel.data):
        return Started(kernel)
    images: list[Image] = []
    for name in initrds or label.initrds:
        found = yield from _image(get, name)
        if isinstance(found, Stopped):
            return found
        images.append(found)
    return Booted(kernel, tuple(images), f"BOOT_IMAGE={label.file} {append}".rstrip())


def search(get: Get, names: Iterable[str]) -> Steps[Config | None]:
    """The first of `names` that is there, read with what it includes; None if none is."""
    for name in names:
        got = yield from get(name)
        if isinstance(got, Fetched) and got.status < 300:
            config = Config()
            yield from _read(config, got.data, get)
            return config
    return None


def addresses(address: str) -> list[str]:
    """C0A80102, C0A8010, … C: the client's address in hexadecimal, ever shorter."""
    text = dhcp4.packed(address).hex().upper()
    return [text[:size] for size in range(8, 0, -1)]


def get_file(
    machine: Machine, directory: str, name: str, block: bytes, waits: tuple[Ns, ...], *, http: bool = False
) -> Steps[Fetched | NotFetched]:
    """A file by its name relative to a directory, an absolute path on the same server, "host::path", or a URL."""
    try:
        url = urllib.parse.urljoin(directory.replace("tftp://", "http://", 1), name)
    except ValueError:  # "//[::"
        return NotFetched("broken", text="no URL")
    scheme = "tftp" if directory.startswith("tftp://") else "http"
    if name.startswith(("http://", "tftp://")):
        scheme, url = name[:4], "http" + name[4:]
    elif "::" in name:
        host, _, path = name.partition("::")
        scheme, url = "tftp", f"http://{host}/{path.lstrip('/')}"
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # "http://[::/"
        return NotFetched("broken", text="no URL")
    if scheme == "http":
        if not http:
            return NotFetched("broken", text="this loader has no HTTP")
        headers = (("Host", parts.netloc), ("User-Agent", "Syslinux/6.04"))
        got = yield from fetch(machine, HttpGet(url, headers))
        return NotFetched("status", got.status) if isinstance(got, Fetched) and got.status >= 300 else got
    octets = urllib.parse.unquote_to_bytes(parts.path.lstrip("/"))
    return (
        yield from fetch(machine, TftpGet(parts.hostname or "", octets, ((b"tsize", b"0"), (b"blksize", block)), waits))
    )


def directory_of(message: Message) -> str:
    """The directory of a boot file on its server, as a URL that ends in "/"."""
    name = message.boot_file.decode("utf-8", "replace").lstrip("/")
    return f"tftp://{message.siaddr}/{name.rpartition('/')[0]}".rstrip("/") + "/"


# --- helpers ----------------------------------------------------------------------------------------------------


def _places(machine: Machine) -> list[str]:
    """Where the configuration may be (doc/pxelinux.txt): by UUID, MAC, address, and the default."""
    uuid = dhcp4.machine_uuid(b"\0" + machine.uuid) if machine.uuid else ""
    mac = f"01-{machine.mac.hex('-')}"
    found = [*([uuid] if uuid else []), mac, *addresses(machine.address), "default"]
    return [f"pxelinux.cfg/{name}" for name in found]


def _text(value: bytes | None) -> str:
    return (value or b"").split(b"\0", 1)[0].decode("utf-8", "replace")


def _image(get: Get, name: str) -> Steps[Image | Stopped]:
    got = yield from get(name)
    if isinstance(got, NotFetched):
        return Stopped("", f"Loading {name}... failed: No such file or directory")
    return Image(name, name, got.octets, got.sha256, got.data)


def _read(config: Config, data: bytes, get: Get, depth: int = 0) -> Steps[None]:
    """readconfig.c: one directive a line, whatever its case; what comes before the first LABEL is for all."""
    label: Label | None = None
    for line in data.decode("utf-8", "replace").splitlines()[:10_000]:
        word, _, rest = line.strip().partition(" ")
        word, rest = word.lower(), rest.strip()
        if word == "menu":
            word, _, rest = rest.partition(" ")
            word = "menu " + word.lower()
        if not word or word.startswith("#") or word in _IGNORED:
            continue
        if word == "label" and len(config.labels) < MAX_LABELS:
            label = Label(rest)
            config.labels.append(label)
        elif word in ("default", "ontimeout") and label is None:
            config.default = rest or config.default
        elif word == "menu default" and label is not None:
            config.default = label.name
        elif word == "include" and depth < MAX_FILES:
            got = yield from get(rest.split()[0] if rest else "")
            if isinstance(got, Fetched):
                yield from _read(config, got.data, get, depth + 16)
        elif word == "append" and label is None:
            config.append = rest
        elif word == "append" and label is not None:
            label.append = rest
        elif word == "initrd" and label is not None:
            label.initrds = tuple(rest.split(","))
        elif word in ("kernel", "linux", "com32", "boot", "pxe", "config", "localboot", "fdt", "fdtdir") and label:
            if word in ("fdt", "fdtdir"):
                continue
            label.kind, label.file = word, rest
        else:
            config.strange.append(line.strip()[:256])


_IGNORED = frozenset(
    ("prompt", "timeout", "totaltimeout", "say", "display", "font", "serial", "console", "allowoptions", "noescape",
     "nocomplete", "implicit", "ipappend", "sysappend", "ui", "text", "endtext", "menu label", "menu title",
     "menu background", "menu color", "menu clear", "menu separator", "menu hide", "menu begin", "menu end")
)  # fmt: skip
"""Directives that change nothing where nobody is at the keyboard."""
