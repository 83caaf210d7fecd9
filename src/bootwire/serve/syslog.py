"""The machines' own consoles: iPXE sends what it prints to the syslog server that our scripts name.

Anyone on the network can send to this port, so lines are limited: for each sender, and in all. What is left out is
counted and told in the sender's own next line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from bootwire.facts import ConsoleSaid
from bootwire.serve.content import Record
from bootwire.serve.datagrams import Allowances, Datagrams
from bootwire.wire import syslog
from bootwire.wire.text import printable

PORT = 514  # RFC 5426 section 3.3

RATE, BURST = 50, 400
"""Lines a second from one sender, and at once: a whole iPXE boot with a long script prints 100 to 200 lines."""

TOTAL_RATE, TOTAL_BURST = 2_000, 20_000
"""The same for all of them together, whoever they say they are: 200 machines at once, and forged senders."""

BUFFER = 1 << 20
"""Octets of the kernel's queue, as it counts them: some 1,000 lines, five from each of 200 machines."""


class SyslogReceiver:
    """Receives on every address, in the control loop, from construction until `close`.

    addresses   dotted, ours. One whose port is taken is left out with a `Warned` fact: consoles are a convenience
    machine_at  the MAC at an address, "" if not known
    """

    def __init__(
        self,
        control: asyncio.AbstractEventLoop,
        addresses: Sequence[str],
        record: Record,
        machine_at: Callable[[str], str],
        port: int = PORT,
    ) -> None:
        self._record = record
        self._machine_at = machine_at
        self._allowances = Allowances(RATE, BURST, TOTAL_RATE, TOTAL_BURST)
        without = "the machines' consoles are not shown"
        self._sockets = Datagrams(
            control, addresses, port, record, self._take,
            service="syslog", without=without, largest=syslog.LIMIT, buffer=BUFFER,
        )  # fmt: skip

    @property
    def ports(self) -> tuple[int, ...]:
        """The port of each address that is listened on."""
        return self._sockets.ports

    def close(self) -> None:
        self._sockets.close()

    def _take(self, data: bytes, source: tuple[str, int], _answer: Callable[[bytes], None]) -> None:
        sender = source[0]
        allowance = self._allowances.take(sender, time.monotonic())
        if allowance is None:
            return
        text = printable(syslog.parse(data).text.strip())
        if not text:  # iPXE prints empty lines, too
            return
        machine = self._machine_at(sender)
        if allowance.refused:
            left_out = f"({allowance.refused} lines left out: more than {RATE} a second)"
            allowance.refused = 0
            self._record(ConsoleSaid(machine, sender, left_out))
        self._record(ConsoleSaid(machine, sender, text))
