"""One decision without a network: which rule, the exact offer, the exact script (`bootwire decide`).

The machine's DISCOVER is written by the firmware persona of its kind, and goes through the very server that would get
it.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace

from bootwire.assets.scripts import Caller
from bootwire.boot_server import BootServer, Datagram, Send
from bootwire.boot_server import Settings as ServerSettings
from bootwire.engine import S
from bootwire.facts import Offered, Silent, Warned
from bootwire.policy.decide import Offerings
from bootwire.policy.target import Traits
from bootwire.preboot.personas import bios, edk2, uefi_http
from bootwire.preboot.personas.steps import Machine, Persona, SendUdp
from bootwire.serve.boot_scripts import Scripts
from bootwire.serve.content import Later, Peer
from bootwire.serve.fleet import Choice, FleetMode, choose
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from bootwire.wire.http import Request

OURS = "192.0.2.1"  # RFC 5737: stands for our address where none is given

_ARCHES = {  # loader directory -> option 93 of its UEFI, and of its UEFI HTTP Boot
    "i386": (6, 15), "x86_64": (7, 16), "arm32": (10, 18), "arm64": (11, 19), "riscv32": (25, 26),
    "riscv64": (27, 28), "loong64": (39, 40),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would happen. offer: None where there would be none; because: of the offer's shape, or of the silence."""

    choice: Choice
    discover: Message
    offer: Message | None
    offer_octets: bytes
    because: str
    warnings: tuple[str, ...]
    script: str
    script_because: str


def rehearse(mode: FleetMode, traits: Traits, loaders: frozenset[str], http_port: int = 80) -> Rehearsed:
    """What a machine with these traits gets. traits.link: our address, or the relay's network. Raises ValueError."""
    ours = traits.link if traits.link and not traits.relay else OURS
    discover = discover_of(traits)

    def base(at: str) -> str:
        return f"http://{at}" if http_port == 80 else f"http://{at}:{http_port}"

    server = BootServer(ServerSettings(http_port, "proxy", Offerings(loaders)), mode.decider.known)
    source = (traits.relay, dhcp4.SERVER_PORT) if traits.relay else ("0.0.0.0", dhcp4.CLIENT_PORT)
    effects = server.receive(Datagram(dhcp4.emit(discover), source, "dhcp", traits.interface or "eth0", ours), S)
    sends = [effect for effect in effects if isinstance(effect, Send)]
    because = next((effect.because for effect in effects if isinstance(effect, Offered | Silent)), "")
    warnings = tuple(effect.what for effect in effects if isinstance(effect, Warned))
    server.note_traits(traits)
    server.tick(S)
    scripts = Scripts(server, mode.decider, base, mode.link)
    platform = "pcbios" if traits.platform == "bios" else "efi"
    who = Caller("i386" if traits.platform == "bios" else traits.platform, platform, "2.0.0")
    smbios = (("uuid", traits.uuid), ("serial", traits.serial), ("manufacturer", traits.manufacturer))
    request = Request("GET", "/boot.ipxe", (*smbios, ("product", traits.product)), {})
    peer = Peer(traits.address or "192.0.2.57", 49152, ours)
    script = scripts(traits.machine, request, who, peer)
    assert not isinstance(script, Later)  # a fleet always knows
    octets = sends[0].data if sends else b""
    return Rehearsed(
        choose(mode.loaded, replace(traits, stage="script")),
        discover,
        dhcp4.parse(octets) if octets else None,
        octets,
        because,
        warnings,
        script.text.decode(),
        script.because,
    )


def discover_of(traits: Traits) -> Message:
    """The first DISCOVER that firmware of this kind sends. Raises ValueError for an architecture without firmware."""
    uuid = _guid(traits.uuid) if traits.uuid else bytes.fromhex("33221100554477668899aabbccddeeff")
    machine = Machine(bytes.fromhex(traits.machine.replace(":", "")), uuid)
    if traits.platform == "bios":
        message = _first(bios.boot(machine))
    elif traits.platform in _ARCHES and traits.firmware == "uefi-http":
        message = _first(uefi_http.boot(machine, uefi_http.Build(arch=_ARCHES[traits.platform][1])))
    elif traits.platform in _ARCHES:
        message = _first(edk2.boot(machine, edk2.Build(arch=_ARCHES[traits.platform][0])))
    else:
        raise ValueError(f"no firmware is known for the architecture {traits.platform!r}")
    options = list(message.options)
    if traits.vendor_class:
        options = [(c, traits.vendor_class.encode() if c == dhcp4.VENDOR_CLASS else v) for c, v in options]
    if traits.user_class:
        options.append((dhcp4.USER_CLASS, traits.user_class.encode()))
    if traits.circuit_id or traits.remote_id:
        ids = ((1, traits.circuit_id.encode()), (2, traits.remote_id.encode()))
        options.append((dhcp4.RELAY_AGENT, b"".join(bytes((c, len(v))) + v for c, v in ids if v)))
    return replace(message, options=tuple(options), giaddr=traits.relay or "0.0.0.0")


def _first(persona: Persona) -> Message:
    """What a persona sends first."""
    request = next(persona)
    while not isinstance(request, SendUdp):
        request = persona.send(None)
    return dhcp4.parse(request.data)


def _guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def readable(script: str) -> str:
    """A script as it is, but with the long sealed tokens of its URLs cut, for a terminal."""
    return re.sub(r"(/(?:image|doc)/[A-Za-z0-9_-]{12})[A-Za-z0-9_-]+", r"\1…", script)
