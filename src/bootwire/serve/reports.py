"""What bare machines tell of themselves, received: acknowledged, made into records, and told as facts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bootwire.engine import reports as engine
from bootwire.engine.lru import Lru
from bootwire.facts import ProgramSaid, Refused, ReportReceived
from bootwire.policy import inventory
from bootwire.policy.inventory import Hardware, Machine
from bootwire.serve.brake import Brake, ControlClock
from bootwire.serve.content import Record
from bootwire.serve.datagrams import Datagrams
from bootwire.wire import report
from bootwire.wire.text import printable

MACHINES: Final = 4_096  # records kept in memory, the least recently reported forgotten first
FACTS: Final = 100  # lines a second about what machines report
REFUSALS: Final = 20  # the same about datagrams that were none
RECORD: Final = 16_384  # characters of a record in a fact; above that, partitions are in the inventory alone
BUFFER: Final = 2 << 20  # octets of the kernel's queue, as it counts them: 200 machines that report at once


class ReportReceiver:
    """Receives on every address, in the control loop, from `open` until `close`. Records outlive both.

    machine_at  the MAC at an address, "" if not known
    note        told of every record after each report
    strangers   new records taken in all from addresses that no machine was heard at
    """

    def __init__(
        self,
        record: Record,
        machine_at: Callable[[str], str],
        note: Callable[[Machine], None] = lambda _: None,
        strangers: int = MACHINES,
    ) -> None:
        self._record = record
        self._machine_at = machine_at
        self._note = note
        self._engine = engine.Reports()
        self._records: Lru[str, Machine] = Lru(MACHINES)
        self._sockets: Datagrams | None = None
        self._strangers = strangers

    def open(self, control: asyncio.AbstractEventLoop, addresses: Sequence[str], port: int = report.PORT) -> None:
        """Addresses whose port is taken are left out with a fact. Opening again moves to other addresses."""
        self.close()
        self._facts = Brake(ControlClock(control), self._record, "report", FACTS)
        self._refusals = Brake(ControlClock(control), self._record, "report", REFUSALS)
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
                    self._refuse(self._machine_at(source[0]), source[0], because)
                case engine.Complete(parts):
                    self._complete(parts, source[0])

    def _complete(self, parts: Sequence[report.Report], address: str) -> None:
        now = inventory.hardware(parts)
        at = self._machine_at(address)
        if now is None or (at and at != now.machine):
            because = f"it says it is {now.machine}, but {at} has that address" if now else "it does not say who it is"
            self._refuse(at, address, because)
            return
        for text in inventory.notes(parts):
            self._facts.tell(ProgramSaid(now.machine, address, "note", text), time.monotonic_ns())
        if now.cpu == inventory.Cpu() and not now.disks and not now.memory:
            return  # a note alone
        if not at and self._records.get(now.machine) is None:
            self._strangers -= 1
            if self._strangers < 0:
                because = "nobody heard it boot, and many such machines have reported already"
                self._refuse(now.machine, address, because)
                return
        self._fold(now, address)

    def _refuse(self, machine: str, address: str, because: str) -> None:
        self._refusals.tell(Refused(machine, "report", address, printable(because)), time.monotonic_ns())

    def _fold(self, now: Hardware, address: str) -> None:
        before = self._records.get(now.machine)
        after, changed = inventory.fold(before, now, time.time())
        self._records.put(now.machine, after)
        changes = printable("; ".join(changed))
        because = "its first report" if before is None else "something changed" if changed else "as before"
        what = inventory.summary(now)
        record = inventory.as_text(now)
        if len(record) > RECORD:
            record = inventory.as_text(replace(now, disks=tuple(replace(disk, partitions=()) for disk in now.disks)))
        fact = ReportReceived(now.machine, address, now.program, what, changes, because, record)
        self._facts.tell(fact, time.monotonic_ns())
        self._note(after)
