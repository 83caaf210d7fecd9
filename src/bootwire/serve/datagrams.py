"""UDP services of the control loop that anyone on the network may send to: their sockets, and how much is taken."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from bootwire.facts import Listening, Warned
from bootwire.serve import ports
from bootwire.serve.capture_socket import set_receive_buffer
from bootwire.serve.content import Record

TURN: Final = 256  # datagrams taken before others in the loop have their turn
SENDERS: Final = 1_024  # senders whose rate is remembered, the least recent forgotten first

Take = Callable[[bytes, tuple[str, int], Callable[[bytes], None]], None]
"""Called with a datagram, who sent it, and what answers from the address that it came to."""


class Datagrams:
    """Receives on every address from construction until `close`.

    addresses  dotted, ours. One whose port is taken is left out with a `Warned` fact
    service    its name in facts; without  what machines go without then: "the machines' consoles are not shown"
    largest    octets of a datagram looked at; buffer: octets of the kernel's queue, as it counts them
    """

    def __init__(
        self,
        control: asyncio.AbstractEventLoop,
        addresses: Sequence[str],
        port: int,
        record: Record,
        take: Take,
        *,
        service: str,
        without: str,
        largest: int,
        buffer: int,
    ) -> None:
        self._control, self._record, self._take = control, record, take
        self._service, self._without, self._largest, self._buffer = service, without, largest, buffer
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
            set_receive_buffer(made, self._buffer)
            made.bind((address, port))
        except OSError as error:
            made.close()
            what, fix = f"UDP port {port} of {address} cannot be opened: {error.strerror}", ""
            if error.errno == errno.EADDRINUSE:
                what, fix = ports.taken("udp", port)
            self._record(Warned("", f"{what}; {self._without}", fix))
            return
        self._sockets.append(made)
        self._control.add_reader(made, self._receive, made)
        self._record(Listening("", self._service, address, made.getsockname()[1]))

    def _receive(self, source: socket.socket) -> None:
        for _ in range(TURN):
            try:
                data, sender = source.recvfrom(self._largest)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error, or the interface went away; the socket goes on
                continue

            def answer(octets: bytes, to: tuple[str, int] = sender) -> None:
                try:
                    source.sendto(octets, to)
                except OSError:  # it has no way back: it will ask again, or not
                    return

            self._take(data, sender, answer)


class Allowance:
    """A token bucket: `rate` a second, `burst` at once. refused: since the last time it was told."""

    __slots__ = ("_burst", "_left", "_rate", "_when", "refused")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._when = 0.0
        self.refused = 0

    def take(self, now: float) -> bool:
        """Whether one more may pass. now: seconds."""
        self._left = min(self._burst, self._left + (now - self._when) * self._rate)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Allowances:
    """An allowance for each sender, and one for all of them together, whoever they say they are."""

    def __init__(self, rate: float, burst: float, total_rate: float, total_burst: float) -> None:
        self._each = rate, burst
        self._total = Allowance(total_rate, total_burst)
        self._senders: OrderedDict[str, Allowance] = OrderedDict()

    def take(self, sender: str, now: float) -> Allowance | None:
        """The sender's allowance if one more may pass (its `refused` has not been told then), else None."""
        allowance = self._senders.get(sender)
        if allowance is None:
            allowance = self._senders[sender] = Allowance(*self._each)
            if len(self._senders) > SENDERS:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(sender)
        if allowance.take(now) and self._total.take(now):
            return allowance
        allowance.refused += 1
        return None
