"""FreeBSD's loader (pxeboot, loader.efi) and its own DHCP.

Sources: freebsd-src stand/libsa/bootp.c, stand/libsa/tftp.c, stand/common/dev_net.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bootwire.engine import Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas import pxe
from bootwire.preboot.personas.steps import (
    Booted,
    Fetched,
    Image,
    Machine,
    NotFetched,
    Persona,
    Steps,
    Stopped,
    TftpGet,
    doubling,
    fetch,
    lease,
    show,
)
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Options

WAITS = doubling(2 * S, 64 * S, 4)  # MINTMO 2, MAXTMO 120 (stand/libsa/net.h); a person has given up by then
TFTP_WAITS = doubling(2 * S, 8 * S, 4)
REQUESTED = bytes((17, 12, 16, 3, 1, 26, 54))
SUFFIXES = ("", ".gz")
_ROOT = re.compile(r"(?:(tftp|nfs):(?://)?)?(?:([0-9.]+):?)?(/.*)?")


def boot(machine: Machine, _build: object = None) -> Persona:
    """DHCP, the root path, loader.conf, and the kernel that it names; NFS is as far as we follow."""
    rules = dhcp.Rules(options=options, choose=choose, discover=WAITS, request=WAITS, restarts=5)
    leased = yield from lease(machine, dhcp.Client(rules, machine.mac, machine.xid))
    if isinstance(leased, dhcp.Failed):
        return Stopped("", "net_open: RARP/BOOTP failed")
    message = leased.ack.message
    given = (message.option(17) or b"").split(b"\0", 1)[0].decode("utf-8", "replace")
    match = _ROOT.fullmatch(given)
    scheme, host, path = match.groups() if match else (None, None, None)
    server = host or dhcp4.address(message.option(16)) or message.siaddr
    yield from show(f"pxe_open: server addr: {server}  root path: {given}")
    if not given:
        return Stopped("", "no root-path (option 17) from the DHCP server")
    if scheme != "tftp":
        return Stopped("", f"loads its kernel over NFS from {server}:{path or '/'}, which is not followed here")
    base = f"{(path or '').rstrip('/')}"

    def get(name: str) -> Steps[Fetched | NotFetched]:
        wanted = ((b"tsize", b"0"), (b"blksize", b"1428"))
        port = 2000 + (machine.now // S & 0x3FF)
        full = f"{base}/{name}".encode()
        return (yield from fetch(machine, TftpGet(server, full, wanted, TFTP_WAITS, port=port)))

    settings: dict[str, str] = {"kernel": "kernel"}
    for name in ("boot/defaults/loader.conf", "boot/loader.conf", "boot/loader.conf.local"):
        got = yield from get(name)
        if isinstance(got, Fetched):
            settings |= _conf(got.data)
    wanted = [f"boot/{settings['kernel']}/kernel"]
    wanted += [f"boot/{settings['kernel']}/{name}.ko" for name in _modules(settings)]
    wanted += [settings[f"{name}_name"].lstrip("/") for name in _images(settings)]
    images: list[Image] = []
    for name in wanted:
        image = yield from _first(get, name, server, base)
        if image is None:
            return Stopped("", f"can't find '{name}'")
        images.append(image)
    root = settings.get("vfs.root.mountfrom", "")
    return Booted(images[0], tuple(images[1:]), f"vfs.root.mountfrom={root}" if root else "")


def options(ask: dhcp.Ask) -> Options:
    """bootp(), stand/libsa/bootp.c: a bare "PXEClient", a user class as in RFC 3004, no architecture."""
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        *(((dhcp4.REQUESTED_ADDRESS, dhcp4.packed(ask.address)),) if ask.address else ()),
        *(((dhcp4.SERVER_ID, dhcp4.packed(ask.server)),) if ask.server else ()),
        *(((dhcp4.LEASE_TIME, (300).to_bytes(4, "big")),) if ask.kind == dhcp4.REQUEST_LEASE else ()),
        (dhcp4.VENDOR_CLASS, b"PXEClient"),
        (dhcp4.USER_CLASS, b"\x07FreeBSD"),
        (dhcp4.REQUEST_LIST, REQUESTED),
    )


def choose(heard: Sequence[dhcp.Heard], _elapsed: Ns) -> dhcp.Choice | None:
    """Whatever offer comes first: neither the address in it nor the sender is looked at, so a ProxyDHCP offer is taken
    for one (bootprecv)."""
    offers = [one for one in heard if one.message.type == dhcp4.OFFER]
    return dhcp.Choice(offers[0]) if offers else None


# --- helpers ----------------------------------------------------------------------------------------------------


def _first(get: object, name: str, server: str, base: str) -> Steps[Image | None]:
    assert callable(get)
    for suffix in SUFFIXES:
        got = yield from get(name + suffix)
        if isinstance(got, Fetched):
            return pxe.image(name + suffix, f"tftp://{server}{base}/{name}{suffix}", got)
    return None


def _conf(data: bytes) -> dict[str, str]:
    """loader.conf(5): name="value" lines."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines()[:5000]:
        match = re.match(r'\s*([A-Za-z0-9_.-]+)\s*=\s*"?([^"#]*)"?', line)
        if match:
            found[match[1]] = match[2].strip()
    return found


def _modules(settings: dict[str, str]) -> list[str]:
    loads = [name.removesuffix("_load") for name, value in settings.items() if name.endswith("_load")]
    return [name for name in loads if settings[f"{name}_load"].upper() == "YES" and f"{name}_type" not in settings]


def _images(settings: dict[str, str]) -> list[str]:
    """Memory disks: loaded with a type of their own and a name (mfsroot_load, mfsroot_type, mfsroot_name)."""
    loads = [name.removesuffix("_load") for name, value in settings.items() if name.endswith("_load")]
    return [name for name in loads if f"{name}_type" in settings and f"{name}_name" in settings]
