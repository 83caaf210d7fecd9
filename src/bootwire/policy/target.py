"""What a machine shall boot, and what there is to decide it by: the values that deciders and servers exchange.

A decider (static mode, a fleet file, somebody's HTTP service) turns `Traits` into a `Target` or a `Silence`; how the
machine is brought there (loader, shape of the offer) is `policy.decide`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bootwire.policy.client import Client, Kind
from bootwire.policy.inventory import Hardware
from bootwire.wire import dhcp4
from bootwire.wire.bootinfo import Boot
from bootwire.wire.dhcp4 import Message
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

Stage = Literal["discover", "pxe", "script", "bootinfo", "other"]
"""When it is asked: at a DISCOVER, on port 4011, when a loader wants its script, by bootinfo, or for something else."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of a machine that asks; "" for what is not known (yet).

    machine       MAC, lower-case with colons
    uuid          option 97 or SMBIOS, as text, lower case
    serial manufacturer product   SMBIOS, known from the first script request or report on
    platform      loader directory of its processor: "bios", "x86_64", "arm64" …
    architecture  option 93's first known number (IANA Processor Architecture Types), -1 if none
    firmware      "bios", "uefi" or "uefi-http": what the machine started this boot with
    loader        "ipxe" once an iPXE asks, else ""
    vendor_class user_class   options 60 and 77, printable
    link          an IPv4 address of the network the machine is on: its relay's, or ours on that interface
    address       its own IPv4
    interface     ours, by which it was heard
    relay         giaddr
    choice        the profile that was chosen in a boot menu in this boot
    boot          counts its boots that DHCP showed, where the one that asks is at the address that DHCP showed; else 0
    unproved      why that is 0, for a person
    circuit_id remote_id   option 82 sub-options 1 and 2 (RFC 3046): as text where they are printable, else "0x…"
    hardware      what a program on the bare machine reported of it, None if none did (`inventory.lookup`)
    """

    machine: str
    uuid: str = ""
    serial: str = ""
    manufacturer: str = ""
    product: str = ""
    platform: str = ""
    architecture: int = -1
    firmware: str = ""
    loader: str = ""
    vendor_class: str = ""
    user_class: str = ""
    link: str = ""
    address: str = ""
    interface: str = ""
    relay: str = ""
    circuit_id: str = ""
    remote_id: str = ""
    stage: Stage = "other"
    hardware: Hardware | None = None
    choice: str = ""
    boot: int = 0
    unproved: str = ""


LOCAL = ""
"""The profile of a menu's entry that is the machine's own disk."""


@dataclass(frozen=True, slots=True)
class Menu:
    """A boot menu that PXE firmware shows itself (PXE 2.1 section 2.2.1, tags 9 and 10).

    entries    (profile, title), the first is taken when time is up; "" for the machine's own disk
    seconds    until then: 0 takes it without anybody noticing, 255 waits for ever
    discovery  how the boot server is looked for
    """

    entries: tuple[tuple[str, str], ...]
    prompt: str = "Press F8 to choose"
    seconds: int = 0
    discovery: Literal["unicast", "broadcast", "multicast"] = "unicast"


@dataclass(frozen=True, slots=True)
class Image:
    """Octets that a machine shall fetch.

    location  absolute path of a file of this machine, or an http(s) URL; the operator's, never a peer's
    sha256    lower-case hexadecimal that the octets must have, "" for any
    signature where the detached signature is that they must have, as for location; "" for none
    keys      absolute path of the key that must have made it: an OpenPGP keyring, a certificate or public key in PEM
    """

    location: str
    sha256: str = ""
    signature: str = ""
    keys: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What a machine boots. One of: kernel (with what belongs to it), script, local.

    because   why this machine gets this: "machine web-1 in fleet.toml, line 12"
    profile   what the operator calls it, "" where it has no name
    cmdline message   of the kernel; templates are resolved by the decider's `render`
    script    an iPXE script of the operator's own ("#!ipxe…"), instead of a kernel
    local     it shall go on with its own disk
    suits     loader directories of the processors that the kernel runs on ("x86_64", "bios"); empty: not known
    loader    how it is brought there: "ipxe", "pxelinux", or what suits best ("auto")
    menu      the machine's firmware asks somebody which of these it shall be
    program   boot program that runs before the loader, "hello" or "ask"; "" for the server's own choice
    bootinfo  what it is told if it asks by bootinfo, None: what follows from the rest
    files     further images that command lines and documents refer to, by name
    variables what templates may use, and what else the decider remembers of it
    """

    because: str
    profile: str = ""
    kernel: Image | None = None
    initrds: tuple[Image, ...] = ()
    cmdline: str = ""
    message: str = ""
    script: str = ""
    local: bool = False
    suits: frozenset[str] = frozenset()
    loader: Literal["auto", "ipxe", "pxelinux"] = "auto"
    menu: Menu | None = None
    program: str = ""
    bootinfo: Boot | None = None
    files: Mapping[str, Image] = field(default_factory=dict)
    variables: Mapping[str, object] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """In a few words."""
        if self.local:
            return "its own disk"
        if self.script:
            return "a script of the operator's"
        if self.menu is not None:
            return f"a menu of {len(self.menu.entries)}"
        if self.kernel is None:
            return "nothing"
        name = self.kernel.location.rpartition("/")[2] or self.kernel.location
        more = f" with {len(self.initrds)} initrd{'s' if len(self.initrds) > 1 else ''}" if self.initrds else ""
        return f"{printable(name, 60)}{more}"


@dataclass(frozen=True, slots=True)
class Silence:
    """Do not answer, so that another server may."""

    because: str


Decision = Target | Silence


def traits(client: Client, message: Message, *, ours: str, interface: str, stage: Stage) -> Traits:
    """What one DHCP message says, read leniently. ours: our address on the way to the client."""
    platform = client.platforms[0] if client.platforms else ""
    circuit, remote = relay_ids(message.option(dhcp4.RELAY_AGENT))
    relay = "" if message.giaddr == "0.0.0.0" else message.giaddr
    return Traits(
        machine=client.machine,
        uuid=client.uuid.lower(),
        platform=platform,
        architecture=client.architecture,
        firmware=_firmware(client, platform),
        loader="ipxe" if client.kind is Kind.IPXE else "",
        vendor_class=client.vendor_class,
        user_class=client.user_class,
        link=relay or ours,
        address="" if message.ciaddr == "0.0.0.0" else message.ciaddr,
        interface=interface,
        relay=relay,
        circuit_id=circuit,
        remote_id=remote,
        stage=stage,
    )


def _firmware(client: Client, platform: str) -> str:
    if platform == "bios":
        return "bios"
    if client.kind is Kind.HTTP:
        return "uefi-http"
    return "uefi" if platform else ""


_CIRCUIT_ID, _REMOTE_ID = 1, 2  # RFC 3046 section 3


def relay_ids(value: bytes | None) -> tuple[str, str]:
    """(circuit id, remote id) of option 82 (RFC 3046), as text where they are printable, else "0x…"; "" for none."""
    if value is None:
        return "", ""
    try:
        found = dict(dhcp4.sub_options(value, padded=False))
    except WireError:
        return "", ""
    return _id(found.get(_CIRCUIT_ID, b"")), _id(found.get(_REMOTE_ID, b""))


def _id(value: bytes) -> str:
    if all(0x20 <= octet < 0x7F for octet in value):
        return value.decode("ascii")
    return "0x" + value.hex()
