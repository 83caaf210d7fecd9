"""For people who write boot programs: a port that sends back what it gets, and one that shows it as a line.

Both are limited for each sender and in all. The echo answers no port below 1024, so that no two services can be made
to answer each other for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from bootwire.facts import ProgramSaid
from bootwire.serve.content import Record
from bootwire.serve.datagrams import Allowances, Datagrams
from bootwire.wire.text import printable

ECHO_PORT: Final = 6972  # UDP; RFC 862's port 7 is anybody's, and firewalls know it
LOG_PORT: Final = 6973  # UDP: each datagram is a line

RATE, BURST = 50, 400  # datagrams a second of one sender, and at once: as for consoles
TOTAL_RATE, TOTAL_BURST = 2_000, 20_000
LARGEST: Final = 2_048  # octets of a datagram that come back, or are looked at
BUFFER: Final = 1 << 20


class Echo:
    """Both services on every address, in the control loop, from construction until `close`."""

    def __init__(
        self,
        control: asyncio.AbstractEventLoop,
        addresses: Sequence[str],
        record: Record,
        machine_at: Callable[[str], str],
        echo_port: int = ECHO_PORT,
        log_port: int = LOG_PORT,
    ) -> None:
        self._record, self._machine_at = record, machine_at
        self._allowances = Allowances(RATE, BURST, TOTAL_RATE, TOTAL_BURST)
        self.echo = Datagrams(
            control, addresses, echo_port, record, self._send_back,
            service="echo", without="nothing is echoed", largest=LARGEST, buffer=BUFFER,
        )  # fmt: skip
        self.log = Datagrams(
            control, addresses, log_port, record, self._show,
            service="log", without="programs cannot log", largest=LARGEST, buffer=BUFFER,
        )  # fmt: skip

    def close(self) -> None:
        self.echo.close()
        self.log.close()

    def _send_back(self, data: bytes, source: tuple[str, int], answer: Callable[[bytes], None]) -> None:
        if source[1] >= 1024 and self._tell("echo", data, source[0]):
            answer(data)

    def _show(self, data: bytes, source: tuple[str, int], _answer: Callable[[bytes], None]) -> None:
        self._tell("log", data, source[0])

    def _tell(self, how: str, data: bytes, sender: str) -> bool:
        allowance = self._allowances.take(sender, time.monotonic())
        if allowance is None:
            return False
        machine = self._machine_at(sender)
        if allowance.refused:
            left_out = f"({allowance.refused} datagrams left out: more than {RATE} a second)"
            allowance.refused = 0
            self._record(ProgramSaid(machine, sender, how, left_out))
        self._record(ProgramSaid(machine, sender, how, printable(data.rstrip(b"\r\n\0"))))
        return True
