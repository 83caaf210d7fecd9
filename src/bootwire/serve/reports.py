"""What bare machines tell of themselves, received: acknowledged, made into records, and told as facts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from bootwire.engine import reports as engine
from bootwire.engine.lru import Lru
from bootwire.facts import ProgramSaid, Refused, ReportReceived
from bootwire.policy import inventory
from bootwire.policy.inventory import Hardware, Machine
from bootwire.serve.content import Record
from bootwire.serve.datagrams import Datagrams
from bootwire.wire import report
from bootwire.wire.text import printable

MACHINES: Final = 4_096  # records kept in memory, the least recently reported forgotten first
BUFFER: Final = 2 << 20  # octets of the kernel's queue, as it counts them: 200 machines that report at once


class ReportReceiver:
    """Receives on every address, in the control loop, from `open` until `close`. Records outlive both.

    machine_at  the MAC at an address, "" if not known
    note        told of every new or changed record; what is not is only seen again
    """

    def __init__(
        self, record: Record, machine_at: Callable[[str], str], note: Callable[[Machine], None] = lambda _: None
    ) -> None:
        self._record = record
        self._machine_at = machine_at
        self._note = note
        self._engine = engine.Reports()
        self._records: Lru[str, Machine] = Lru(MACHINES)
        self._sockets: Datagrams | None = None

    def open(self, control: asyncio.AbstractEventLoop, addresses: Sequence[str], port: int = report.PORT) -> None:
        """Addresses whose port is taken are left out with a fact. Opening again moves to other addresses."""
        self.close()
        without = "programs on bare machines cannot report"
        self._sockets = Datagrams(
            control, addresses, port, self._record, self._take,
            service="report", without=without, largest=report.LARGEST + 1, buffer=BUFFER,
        )  # fmt: skip

    @property
    def ports(self) -> tuple[int, ...]:
        """The port of each address that is listened on."""
        return self._sockets.ports if self._sockets else ()

    def close(self) -> None:
        """Safe to call twice."""
        if self._sockets:
            self._sockets.close()

    def machine(self, mac: str) -> Machine | None:
        """A machine's record. Any thread."""
        return self._records.get(mac)

    def known(self, machine: Machine) -> None:
        """Take a record of an earlier run."""
        self._records.put(machine.hardware.machine, machine)

    def _take(self, data: bytes, source: tuple[str, int], answer: Callable[[bytes], None]) -> None:
        for effect in self._engine.receive(data, source[0], time.monotonic_ns()):
            match effect:
                case engine.Send(octets):
                    answer(octets)
                case engine.Refused(because):
                    self._record(Refused(self._machine_at(source[0]), "report", source[0], printable(because)))
                case engine.Complete(parts):
                    self._complete(parts, source[0])

    def _complete(self, parts: Sequence[report.Report], address: str) -> None:
        now = inventory.hardware(parts)
        at = self._machine_at(address)
        if now is None or (at and at != now.machine):
            because = f"it says it is {now.machine}, but {at} has that address" if now else "it does not say who it is"
            self._record(Refused(at, "report", address, because))
            return
        for text in inventory.notes(parts):
            self._record(ProgramSaid(now.machine, address, "note", text))
        if now.cpu == inventory.Cpu() and not now.disks and not now.memory:
            return  # a note alone
        self._fold(now, address)

    def _fold(self, now: Hardware, address: str) -> None:
        before = self._records.get(now.machine)
        after, changed = inventory.fold(before, now, time.time())
        self._records.put(now.machine, after)
        changes = printable("; ".join(changed))
        because = "its first report" if before is None else "something changed" if changed else "as before"
        what = inventory.summary(now)
        self._record(ReportReceived(now.machine, address, now.program, what, changes, because, inventory.as_text(now)))
        self._note(after)
