"""The iPXE script for one machine, from what was decided for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bootwire.assets.scripts import (
    MARKER,
    SMBIOS,
    Boot,
    Caller,
    apology,
    boot_script,
    boot_url,
    go_on,
    mismatch,
    tell_more,
)
from bootwire.boot_server import BootServer
from bootwire.policy.target import Decision, Silence, Target, Traits
from bootwire.serve.content import Later, Peer
from bootwire.serve.mode import Decider, Link, RenderError, Settling, settled
from bootwire.wire.http import Request
from bootwire.wire.text import printable


@dataclass(frozen=True, slots=True)
class Script:
    """An iPXE script for one machine, and why it says what it says."""

    text: bytes
    because: str


class Scripts:
    """Makes boot scripts; a resolver's `boot_script`. Any thread.

    base  "http://192.0.2.1:8080" for one of our addresses
    link  where a machine gets images from (`Mode.link`)
    settling  whether a machine has to wait for its script (`States.settling`)
    """

    def __init__(
        self,
        boot_server: BootServer,
        decider: Decider,
        base: Callable[[str], str],
        link: Callable[[str, str], Link],
        settling: Settling = settled,
    ) -> None:
        self._boot_server = boot_server
        self._decider = decider
        self._base = base
        self._link = link
        self._settling = settling

    def __call__(self, machine: str, request: Request, who: Caller, peer: Peer) -> Script | Later:
        """What the machine is to do now; Later where that must be asked for, or kept, first."""
        traits = self._traits(machine, request, who, peer)
        base = self._base(peer.ours)
        if self._decider.smbios and not any(name in SMBIOS for name, _ in request.query):
            because = "rules look at what SMBIOS tells: it shall come back with that"
            return Script(tell_more(base, machine), because)
        decision = self._decider.known(traits)
        if decision is None:
            return Later(lambda: self._decider.ask(traits), machine)
        script = self._for(decision, traits, who, peer.ours, base)
        return self._settling(machine) or script

    def _traits(self, machine: str, request: Request, who: Caller, peer: Peer) -> Traits:
        """What is known of a machine whose loader asks: from its DHCP messages, and what the loader says."""
        known = self._boot_server.traits_of(machine) or Traits(machine, link=peer.ours)
        said = dict(reversed(request.query))
        told = {name: printable(said[name], 64) for name in SMBIOS if said.get(name)}
        platform = "bios" if who.platform == "pcbios" else who.arch
        traits = replace(
            known,
            machine=machine,
            uuid=told.get("uuid", known.uuid).lower(),
            serial=told.get("serial", known.serial),
            manufacturer=told.get("manufacturer", known.manufacturer),
            product=told.get("product", known.product),
            platform=platform or known.platform,
            firmware=known.firmware or ("bios" if platform == "bios" else "uefi" if platform else ""),
            loader="ipxe",
            address=peer.address,
            stage="script",
        )
        traits = self._boot_server.proved(traits, time.monotonic_ns())
        if told and traits.boot:
            self._boot_server.note_traits(traits)
        return traits

    def _for(self, decision: Decision, traits: Traits, who: Caller, ours: str, base: str) -> Script:
        if isinstance(decision, Silence):
            return Script(apology(decision.because, ours), f"not booted: {decision.because}")
        if decision.local:
            return Script(go_on(f"own disk: {decision.because}", ours), f"its own disk: {decision.because}")
        if decision.kernel is None and not decision.script:
            return Script(apology("there is nothing to boot", ours), f"nothing to boot: {decision.because}")
        if wrong := mismatch(tuple(sorted(decision.suits - {"bios"})), who):
            return Script(apology(wrong, ours), f"not booted: {wrong}")
        link = self._link(traits.machine, base)
        try:
            final = self._decider.render(decision, traits, link)
        except RenderError as error:
            return Script(apology("its boot text could not be made, see the server's journal", ours), f"{error}")
        if final.local:
            return Script(go_on(f"own disk: {final.because}", ours), f"its own disk: {final.because}")
        because = final.because or "static mode: every machine gets this kernel"
        if final.script:
            return Script(final.script.encode(), because)
        return Script(self._boot(final, traits, who, ours, base, link), because)

    def _boot(self, target: Target, traits: Traits, who: Caller, ours: str, base: str, link: Link) -> bytes:
        assert target.kernel is not None
        boot = Boot(
            kernel=link(target.kernel, "kernel"),
            marker=boot_url(base, traits.machine, MARKER),
            initrds=tuple(link(image, f"initrd/{number}") for number, image in enumerate(target.initrds)),
            cmdline=target.cmdline,
            message=target.message,
            syslog=ours,
        )
        return boot_script(boot, who.platform)
