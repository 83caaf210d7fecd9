"""Raspberry Pi boot ROMs: the 3's mask ROM and the 4's EEPROM.

Sources: the Raspberry Pi network boot documentation, raspberrypi/rpi-eeprom release notes and issues, captures in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.engine import Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.policy import offers
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
    agreed,
    configure,
    fetch,
    hear,
    lease,
    show,
)
from bootwire.preboot.personas.steps import SendUdp as _SendUdp
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message, Options

MENU_TEXT = b"Raspberry Pi Boot"
ROM_WAITS = (5 * S,) * 5  # the 3's ROM
EEPROM_WAITS = (4 * S,) * 11  # DHCP_REQ_TIMEOUT 4000 within DHCP_TIMEOUT 45000
TFTP_WAITS = (5 * S,) * 6  # TFTP_FILE_TIMEOUT 30000
REQUESTED = bytes((43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66))


@dataclass(frozen=True, slots=True)
class Build:
    """model: 3 or 4; serial: eight hexadecimal digits, the directory it asks first."""

    model: int = 4
    serial: str = "12345678"

    @property
    def kernel(self) -> str:
        return "kernel8.img"


def boot(machine: Machine, build: Build | None = None) -> Persona:
    """DHCP, then the firmware's files, config.txt, the kernel and its command line."""
    build = build or Build()
    message = yield from (_discover_only(machine, build) if build.model == 3 else _dhcp(machine, build))
    if message is None:
        return Stopped("", "no DHCP offer for a Raspberry Pi" if build.model == 3 else "DHCP timeout")
    if message.siaddr == dhcp.ANY:
        return Stopped("", "no TFTP server address")
    yield from show(f"TFTP server {message.siaddr}")
    files = _Files(machine, build, message.siaddr)
    if build.model == 3:
        first = yield from files.get("bootcode.bin", prefixed=False)
        if isinstance(first, NotFetched):
            return Stopped("", "bootcode.bin: not found")
        yield from files.get("bootsig.bin", prefixed=False)
    starter = "start.elf" if build.model == 3 else "start4.elf"
    yield from files.choose_directory(starter)
    found = yield from files.get(starter)
    if isinstance(found, NotFetched):
        return Stopped("", f"Firmware not found: {starter}")
    settings = _settings((yield from files.get("config.txt")))
    yield from files.get("fixup.dat" if build.model == 3 else "fixup4.dat")
    cmdline = yield from files.get(settings.get("cmdline", "cmdline.txt"))
    initrds: list[Image] = []
    if "initramfs" in settings:
        name = settings["initramfs"].split()[0]
        got = yield from files.get(name)
        if isinstance(got, Fetched):
            initrds.append(files.image(name, got))
    name = settings.get("kernel", build.kernel)
    kernel = yield from files.get(name)
    if isinstance(kernel, NotFetched):
        return Stopped("", f"{name}: not found")
    text = cmdline.data.decode("utf-8", "replace").split("\n")[0].strip() if isinstance(cmdline, Fetched) else ""
    return Booted(files.image(name, kernel), tuple(initrds), text)


# --- DHCP -------------------------------------------------------------------------------------------------------


def options(machine: Machine, build: Build, ask: dhcp.Ask) -> Options:
    """53, 55, 93, 94, 97, 60; nothing says that this is no PC but the machine id (and the MAC)."""
    identity = b"\x44" * 16 if build.model == 3 else b"RPi4" + machine.mac[2:] + bytes.fromhex(build.serial) + bytes(4)
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        *agreed(ask),
        (dhcp4.REQUEST_LIST, REQUESTED),
        (dhcp4.ARCHITECTURE, b"\0\0"),
        (dhcp4.NIC_INTERFACE, b"\1\2\1"),
        (dhcp4.MACHINE_ID, b"\0" + identity[:16]),
        (dhcp4.VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001"),
    )


def is_for_us(message: Message) -> bool:
    """A PXE client's answer whose menu has the one text that the ROM looks for; what follows the text is ignored."""
    return offers.is_pxe(message) and any(text.startswith(MENU_TEXT) for _, text in offers.vendor(message).menu)


def choose(heard: Sequence[dhcp.Heard], _elapsed: Ns) -> dhcp.Choice | None:
    """A DHCP offer, and somebody's answer that is for a Raspberry Pi; both may be one."""
    offers = [one for one in heard if one.message.yiaddr != dhcp.ANY]
    ours = [one for one in heard if is_for_us(one.message)]
    return dhcp.Choice(offers[0], ours[0]) if offers and ours else None


def _dhcp(machine: Machine, build: Build) -> Steps[Message | None]:
    rules = dhcp.Rules(
        options=lambda ask: options(machine, build, ask),
        choose=choose,
        discover=EEPROM_WAITS,
        request=EEPROM_WAITS,
        restarts=5,
    )
    leased = yield from lease(machine, dhcp.Client(rules, machine.mac, machine.xid))
    if isinstance(leased, dhcp.Failed) or leased.choice.proxy is None:
        return None
    return leased.choice.proxy.message


def _discover_only(machine: Machine, build: Build) -> Steps[Message | None]:
    """The 3's ROM takes the offered address without asking for it (its REQUEST never comes)."""
    xid, heard = machine.xid(), list[dhcp.Heard]()
    carried = options(machine, build, dhcp.Ask(dhcp4.DISCOVER, 0, 0))
    for wait in ROM_WAITS:
        until = machine.now + wait
        data = dhcp4.emit(dhcp.request(machine.mac, xid, carried))
        machine.discovers += 1
        yield _SendUdp(dhcp.ANY, dhcp4.CLIENT_PORT, dhcp.EVERYONE, dhcp4.SERVER_PORT, data)
        while machine.now < until:
            one = yield from hear(machine, (dhcp4.CLIENT_PORT,), until)
            if one is not None and one.message.xid == xid and len(heard) < dhcp.MAX_HEARD:
                heard.append(one)
                choice = choose(heard, 0)
                if choice is not None and choice.proxy is not None:
                    offer = choice.offer.message
                    yield from configure(machine, offer.yiaddr, dhcp4.address(offer.option(dhcp4.SUBNET_MASK)))
                    return choice.proxy.message
    return None


# --- files ------------------------------------------------------------------------------------------------------


class _Files:
    """TFTP below a directory named by the serial number, where there is one (TFTP_PREFIX 0)."""

    def __init__(self, machine: Machine, build: Build, server: str) -> None:
        self._machine, self._server = machine, server
        self._model, self._serial = build.model, build.serial
        self._prefix = ""

    def choose_directory(self, starter: str) -> Steps[None]:
        """The one of the serial number if it has the firmware in it; asked by opening the file and hanging up."""
        name = f"{self._serial}/{starter}".encode()
        probe = TftpGet(self._server, name, ((b"tsize", b"0"),), TFTP_WAITS, probe=0)
        got = yield from fetch(self._machine, probe)
        self._prefix = f"{self._serial}/" if isinstance(got, Fetched) else ""

    def get(self, name: str, *, prefixed: bool = True) -> Steps[Fetched | NotFetched]:
        wanted = () if self._model == 3 else ((b"tsize", b"0"), (b"blksize", b"1468"))
        path = (self._prefix if prefixed else "") + name
        return (yield from fetch(self._machine, TftpGet(self._server, path.encode(), wanted, TFTP_WAITS)))

    def image(self, name: str, got: Fetched) -> Image:
        return pxe.image(name, f"tftp://{self._server}/{self._prefix}{name}", got)


def _settings(got: Fetched | NotFetched) -> dict[str, str]:
    """config.txt: name=value lines of [all]; `initramfs FILE followkernel` has no "="."""
    found: dict[str, str] = {}
    if isinstance(got, NotFetched):
        return found
    applies = True
    for line in got.data.decode("utf-8", "replace").splitlines()[:2000]:
        text = line.split("#", 1)[0].strip()
        if text.startswith("["):
            applies = text.lower() in ("[all]", "[pi4]", "[pi3]")
        elif applies and text.startswith("initramfs "):
            found["initramfs"] = text[10:].strip()
        elif applies and "=" in text:
            name, _, value = text.partition("=")
            found[name.strip()] = value.strip()
    return found
