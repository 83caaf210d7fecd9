"""What lpxelinux.0 and syslinux.efi fetch after themselves, by HTTP: library, configuration, kernel and initrds.

Everything is below /pxelinux/MAC/ (DHCP option 210), since PXELINUX takes no names of more than 255 octets: a machine
is known by the path, and by its address where DHCP messages told whose that is. The end of the last file is the
hand-over, for PXELINUX reports nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bootwire.assets import pxelinux
from bootwire.assets.catalog import Blob, LocalFile
from bootwire.assets.pxelinux import Entry
from bootwire.boot_server import BootServer, split_machine
from bootwire.engine import S
from bootwire.engine.lru import Lru
from bootwire.facts import HandedOver, Record, ScriptServed, TransferDone
from bootwire.policy.decide import PXELINUX
from bootwire.policy.target import Image, Silence, Target, Traits
from bootwire.serve.content import Content, Later, Missing, Peer, Reply, Upstream
from bootwire.serve.content import Record as Tell
from bootwire.serve.files import for_machine, open_local
from bootwire.serve.mode import Decider, Link, RenderError, Settling, settled
from bootwire.wire.http import Request
from bootwire.wire.text import printable

ROOM = "pxelinux"
CONFIG = "pxelinux.cfg/"
_PLATFORMS = {"c32": "bios", "e64": "x86_64", "e32": "i386"}  # by the ending of its modules

Give = Callable[[Image, str, str], "Content | Missing | Reply | Upstream | Later"]
"""The octets of an image, by its name, for a machine (`Mode.give`)."""


@dataclass(slots=True)
class _Boot:
    """What a machine has still to fetch."""

    since: int
    left: set[str] = field(default_factory=set)
    octets: int = 0


class Pxelinux:
    """Answers below ROOM, and for its configuration over TFTP. Any thread.

    modules  by catalog name: "bios/ldlinux.c32"
    link     where a machine gets images from, for command lines that name some (`Mode.link`)
    settling whether a machine has to wait for its configuration by HTTP (`States.settling`)
    """

    def __init__(
        self,
        boot_server: BootServer,
        decider: Decider,
        base: Callable[[str], str],
        link: Callable[[str, str], Link],
        give: Give,
        modules: Mapping[str, Blob],
        record: Tell,
        settling: Settling = settled,
    ) -> None:
        self._boot_server = boot_server
        self._decider = decider
        self._base = base
        self._link = link
        self._give = give
        self._modules = modules
        self._record = record
        self._settling = settling
        self._users: Lru[str, None] = Lru(4096)  # machines that were given PXELINUX
        self._boots: Lru[str, _Boot] = Lru(4096)

    def room(self, rest: str, request: Request, peer: Peer) -> Content | Missing | Reply | Upstream | Later:
        here = self._boot_server.machine_at(peer.address)
        machine, name = split_machine(rest)
        machine = machine or here
        if here and machine != here:
            return Missing(f"this is {machine}'s, not {here}'s", here, forbidden=True)
        if CONFIG in name:
            return self.config(machine, name, peer)
        last = name.rpartition("/")[2]
        platform = _PLATFORMS.get(last.rpartition(".")[2], "")
        if platform:
            blob = self._modules.get(f"{platform}/{last}")
            if blob is None or not isinstance(blob.source, LocalFile):
                return Missing(f"there is no {printable(last, 40)}: install syslinux-common", machine)
            return for_machine(open_local(blob.source.path, blob.name, blob.media_type), machine)
        return self._image(machine, name, peer)

    def config(self, machine: str, name: str, peer: Peer, *, at_once: bool = False) -> Reply | Later | Missing:
        """The configuration for a machine; Later where its decision must be asked for, or kept, first.

        at_once  what is decided is given out whether it is kept yet or not
        """
        traits = self._traits(machine, peer)
        decision = self._decider.known(traits)
        if decision is None:
            return Later(lambda: self._decider.ask(traits), machine)
        text, because = self._text(decision, traits, peer)
        if not at_once and (later := self._settling(machine)) is not None:
            return later
        self._record(ScriptServed(machine, printable(name, 80), peer.address, "PXELINUX", because))
        return Reply(200, text, machine=machine)

    def over_tftp(self, machine: str, name: str, peer: Peer) -> Content | None:
        """The same for a PXELINUX whose firmware did not hand option 210 on; None for whoever else asks."""
        if CONFIG not in name or not self._users.has(machine):
            return None
        found = self.config(machine, name, peer, at_once=True)
        if not isinstance(found, Reply):
            return None
        return Content(name, len(found.body), found.body, key=found.body, machine=machine)

    def note(self, record: Record) -> None:
        """Facts of the journal: who uses PXELINUX, and when one has everything."""
        fact = record.fact
        if not isinstance(fact, TransferDone) or not fact.machine:
            return
        if fact.name in PXELINUX.values():
            self._users.put(fact.machine, None)
        boot = self._boots.get(fact.machine)
        if boot is not None and fact.name in boot.left:
            boot.left.discard(fact.name)
            boot.octets += fact.octets
            if not boot.left:
                seconds = (record.at - boot.since) / S
                self._record(HandedOver(fact.machine, fact.peer, boot.octets, round(seconds, 3)))

    def _traits(self, machine: str, peer: Peer) -> Traits:
        known = self._boot_server.traits_of(machine) or Traits(machine, link=peer.ours)
        traits = replace(known, machine=machine, address=peer.address, loader="pxelinux", stage="script")
        return self._boot_server.proved(traits, time.monotonic_ns())

    def _text(self, decision: Target | Silence, traits: Traits, peer: Peer) -> tuple[bytes, str]:
        if isinstance(decision, Silence):
            return pxelinux.go_on(decision.because), f"not booted: {decision.because}"
        if decision.local:
            return pxelinux.go_on(decision.because), f"its own disk: {decision.because}"
        if decision.kernel is None:
            because = 'PXELINUX cannot run what was decided (an iPXE script): give it loader = "ipxe"'
            return pxelinux.go_on(because), because
        base = self._base(peer.ours)
        try:
            final = self._decider.render(decision, traits, self._link(traits.machine, base))
            if final.kernel is None:
                return pxelinux.go_on(final.because), f"its own disk: {final.because}"
            where = f"{base}/{ROOM}/{traits.machine.replace(':', '-')}"
            names = tuple(f"initrd/{number}" for number in range(len(final.initrds)))
            entry = Entry(f"{where}/kernel", tuple(f"{where}/{name}" for name in names), final.cmdline, final.message)
            text = pxelinux.config(entry)
        except (RenderError, ValueError) as error:
            return pxelinux.go_on("its configuration could not be made, see the server's journal"), str(error)
        self._boots.put(traits.machine, _Boot(time.monotonic_ns(), {"kernel", *names}))
        return text, final.because or "static mode: every machine gets this kernel"

    def _image(self, machine: str, name: str, peer: Peer) -> Content | Missing | Reply | Upstream | Later:
        traits = self._traits(machine, peer)
        decision = self._decider.known(traits)
        if decision is None:
            return Later(lambda: self._decider.ask(traits), machine)
        if isinstance(decision, Target) and decision.kernel is not None and not decision.local:
            if name == "kernel":
                return self._give(decision.kernel, name, machine)
            room, _, number = name.partition("/")
            if room == "initrd" and number.isdigit() and len(number) < 4 and int(number) < len(decision.initrds):
                return self._give(decision.initrds[int(number)], name, machine)
        return Missing(f"{printable(name, 60)} is nothing that this machine boots", machine)
