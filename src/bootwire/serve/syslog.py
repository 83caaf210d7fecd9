"""The machines' own consoles: iPXE sends what it prints to the syslog server that our scripts name.

Anyone on the network can send to this port, so lines are limited: for each sender, and in all. What is left out is
counted and told in the sender's own next line.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from bootwire.facts import ConsoleSaid, Listening, Warned
from bootwire.serve import ports
from bootwire.serve.capture_socket import set_receive_buffer
from bootwire.serve.content import Record
from bootwire.wire import syslog
from bootwire.wire.text import printable

PORT = 514  # RFC 5426 section 3.3

RATE, BURST = 50, 400
"""Lines a second from one sender, and at once: a whole iPXE boot with a long script prints 100 to 200 lines."""

TOTAL_RATE, TOTAL_BURST = 2_000, 20_000
"""The same for all of them together, whoever they say they are: 200 machines at once, and forged senders."""

BUFFER = 1 << 20
"""Octets of the kernel's queue, as it counts them: some 1,000 lines, five from each of 200 machines."""

_SENDERS = 1_024  # senders whose rate is remembered, the least recent forgotten first
_TURN = 256  # datagrams taken before others in the loop have their turn


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
        self._control = control
        self._record = record
        self._machine_at = machine_at
        self._senders: OrderedDict[str, _Allowance] = OrderedDict()
        self._total = _Allowance(TOTAL_RATE, TOTAL_BURST)
        self._sockets: list[socket.socket] = []
        for address in addresses:
            self._open(address, port)

    @property
    def ports(self) -> tuple[int, ...]:
        """The port of each address that is listened on."""
        return tuple(each.getsockname()[1] for each in self._sockets)

    def close(self) -> None:
        for each in self._sockets:
            self._control.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _open(self, address: str, port: int) -> None:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            set_receive_buffer(made, BUFFER)
            made.bind((address, port))
        except OSError as error:
            made.close()
            what, fix = f"UDP port {port} of {address} cannot be opened: {error.strerror}", ""
            if error.errno == errno.EADDRINUSE:
                what, fix = ports.taken("udp", port)
            self._record(Warned("", f"{what}; the machines' consoles are not shown", fix))
            return
        self._sockets.append(made)
        self._control.add_reader(made, self._receive, made)
        self._record(Listening("", "syslog", address, made.getsockname()[1]))

    def _receive(self, source: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                data, (sender, _) = source.recvfrom(syslog.LIMIT)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error, or the interface went away; the socket goes on
                continue
            self._take(data, sender)

    def _take(self, data: bytes, sender: str) -> None:
        now = time.monotonic()
        allowance = self._senders.get(sender)
        if allowance is None:
            allowance = self._senders[sender] = _Allowance(RATE, BURST)
            if len(self._senders) > _SENDERS:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(sender)
        if not (allowance.take(now) and self._total.take(now)):
            allowance.refused += 1
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


class _Allowance:
    """A token bucket: `rate` a second, `burst` at once. refused: since the last time it was told."""

    __slots__ = ("_burst", "_left", "_rate", "_when", "refused")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._when = 0.0
        self.refused = 0

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._when) * self._rate)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
