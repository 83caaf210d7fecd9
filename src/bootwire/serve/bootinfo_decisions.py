"""What a machine is told by bootinfo follows from what it shall boot: the same decision as for every other path."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from bootwire.boot_server import BootServer, loader_name, split_machine
from bootwire.engine.bootinfo import Answer, Asker, NoAnswer
from bootwire.policy.target import Image, Silence, Stage, Target, Traits
from bootwire.serve.content import Missing, Peer, Reply
from bootwire.serve.mode import Decider, Link, RenderError
from bootwire.wire import bootinfo as wire
from bootwire.wire.bootinfo import Boot, MemoryFs, Multiboot, Partition
from bootwire.wire.http import Request

ROOM = "mfs"
"""First part of the paths that memory file systems are fetched from: /mfs/MAC is what a machine is told."""

KERNEL, INITRD = "bzImage", "rootfs.cpio.gz"  # what deterboot asks for below it (com32/deterboot/)


class BootinfoDecisions:
    """The edge's `Decisions`, by the mode's decider.

    link   where a machine gets images from (`Mode.link`)
    base   "http://192.0.2.1:8080" for one of our addresses
    fixed  told to every machine, whatever was decided; None: what follows from the decision
    """

    def __init__(
        self,
        boot_server: BootServer,
        decider: Decider,
        link: Callable[[str, str], Link],
        base: Callable[[str], str],
        fixed: Boot | None = None,
    ) -> None:
        self._boot_server = boot_server
        self._decider = decider
        self._link = link
        self._base = base
        self._fixed = fixed

    def known(self, asker: Asker, ours: str) -> Answer | NoAnswer | None:
        if self._fixed is not None:
            return Answer(self._fixed, "every machine is told this (--bootinfo-answer)")
        traits = self._traits(asker, ours)
        decision = self._decider.known(traits)
        if decision is None:
            return None
        if isinstance(decision, Silence):
            return NoAnswer(decision.because)
        return self._answer(decision, traits, ours)

    async def ask(self, asker: Asker, ours: str) -> None:
        await self._decider.ask(self._traits(asker, ours))

    def memory_fs(self, rest: str, request: Request, peer: Peer) -> Missing | Reply:
        """The `Room` below ROOM: leads to the kernel and the first initrd of what the machine shall boot.

        Only decisions that are known already lead anywhere: the machine has just been told by one.
        """
        machine, name = split_machine(rest + "/" if "/" not in rest else rest)
        machine, name = machine or self._boot_server.machine_at(peer.address), name.strip("/")
        decision = self._decider.known(self._traits(Asker(peer.address, machine), peer.ours, "other"))
        if not isinstance(decision, Target) or decision.kernel is None:
            return Missing("no memory file system was decided for this machine", machine)
        link = self._link(machine, self._base(peer.ours))
        images: dict[str, tuple[Image, str]] = {"": (decision.kernel, "kernel"), KERNEL: (decision.kernel, "kernel")}
        if decision.initrds:
            images[INITRD] = decision.initrds[0], "initrd/0"
        if name not in images:
            return Missing(f"a memory file system has {KERNEL} and, where there is an initrd, {INITRD}", machine)
        return Reply(302, b"", headers=(("Location", link(*images[name])),), machine=machine)

    def _traits(self, asker: Asker, ours: str, stage: Stage = "bootinfo") -> Traits:
        known = self._boot_server.traits_of(asker.machine) if asker.machine else None
        traits = replace(known or Traits(asker.machine, link=ours), address=asker.address, stage=stage)
        return self._boot_server.proved(traits, time.monotonic_ns())

    def _answer(self, target: Target, traits: Traits, ours: str) -> Answer:
        because = target.because or "every machine gets the same"
        if target.bootinfo is not None:
            return Answer(target.bootinfo, because)
        if target.local:
            return Answer(Boot(Partition(0)), f"its own disk: {because}")
        base = self._base(ours)
        try:
            if target.script:  # no bootinfo client runs it, but iPXE does, and asks us for it
                loader = (
                    f"{traits.platform}/snponly.efi" if traits.platform not in ("", "bios") else "bios/undionly.kpxe"
                )
                file = loader_name(traits.machine, loader)
                return Answer(Boot(Multiboot(ours, file.encode())), f"iPXE, for a script: {because}")
            if target.kernel is None:
                return Answer(None, f"nothing to boot: {because}")
            final = self._decider.render(target, traits, self._link(traits.machine, base))
        except RenderError as error:
            return Answer(None, str(error))
        line, more = final.cmdline.encode(), ""
        if len(line) > wire.MAX_COMMAND_LINE:
            line, more = b"", f"; without its command line, which has more than {wire.MAX_COMMAND_LINE} octets"
        path = f"{base}/{ROOM}" + (f"/{traits.machine.replace(':', '-')}" if traits.machine else "")
        return Answer(Boot(MemoryFs(path.encode()), line), because + more)
