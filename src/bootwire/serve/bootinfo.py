"""Sockets for bootinfo: machines that ask what to do, and orders to those that wait, on the control loop.

The rules are the engine's. What belongs here: which of our addresses answers, decisions that take their time, facts,
and floods, which the kernel keeps away once an address sends more than any machine would.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bootwire import facts
from bootwire.engine import Ns, S
from bootwire.engine import bootinfo as engine
from bootwire.engine.bootinfo import Answer, Asker, NoAnswer, OrderOver, Server
from bootwire.engine.lru import Lru
from bootwire.serve import bpf
from bootwire.serve.brake import Brake, ControlClock
from bootwire.serve.capture_socket import set_receive_buffer
from bootwire.serve.content import Record
from bootwire.serve.dhcp import PortInUse
from bootwire.serve.interfaces import Interface
from bootwire.serve.ports import taken
from bootwire.wire import bootinfo as wire
from bootwire.wire.bootinfo import Boot
from bootwire.wire.bootinfo_text import say
from bootwire.wire.text import printable

BUFFER: Final = 4 << 20  # octets of the kernel's queue: 2,000 datagrams as it counts them, a rack that asks at once
TURN: Final = 64  # datagrams read before others in the loop have their turn
LARGEST: Final = 2_048  # octets of a datagram looked at

FLOOD: Final = 200  # datagrams a second of one address, 50 times what it is answered
KEPT_AWAY: Final = 10.0  # seconds that the kernel drops what such an address sends
KEPT_AWAY_MOST: Final = 64  # addresses at a time

FACTS: Final = 400  # lines a second about machines that ask: two for each of 200
REFUSALS: Final = 20


class Decisions(Protocol):
    """Who says what a machine shall do. ours: the address of ours that it reaches us by."""

    def known(self, asker: Asker, ours: str) -> Answer | NoAnswer | None:
        """The answer, None where it must be asked for."""

    async def ask(self, asker: Asker, ours: str) -> None:
        """Find it out: afterwards `known` tells. Bounds its own time, raises nothing."""


class BootinfoEdge:
    """Serves from `open` to `close`.

    interfaces  to serve on; an order to an address that was never heard leaves from the one that faces it
    machine_at  the MAC at an address, "" if not known
    `open` raises PortInUse or OSError; after that nothing that a peer or the kernel does raises.
    """

    def __init__(
        self,
        server: Server,
        interfaces: Sequence[Interface],
        decisions: Decisions,
        machine_at: Callable[[str], str],
        record: Record,
    ) -> None:
        self._server = server
        self._interfaces = interfaces
        self._decisions = decisions
        self._machine_at = machine_at
        self._record = record
        self._loop: asyncio.AbstractEventLoop
        self._sockets: dict[tuple[str, int], socket.socket] = {}  # our address and port
        self._heard_by: Lru[str, str] = Lru(engine.SOURCES)  # a machine's address -> ours
        self._asking: dict[Asker, asyncio.Task[None]] = {}
        self._results: dict[str, asyncio.Future[OrderOver | str]] = {}  # by address, for who waits for an order's end
        self._timer: tuple[Ns, asyncio.TimerHandle] | None = None
        self._second = 0
        self._counts: dict[str, int] = {}  # datagrams of each address in this second
        self._kept_away: dict[str, asyncio.TimerHandle] = {}
        self.errors = 0  # datagrams that could not be sent

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._facts = Brake(ControlClock(loop), self._record, "bootinfo", FACTS)
        self._refusals = Brake(ControlClock(loop), self._record, "bootinfo", REFUSALS)
        own = [address for interface in self._interfaces for address in interface.addresses]
        self._server.unwelcome = frozenset(
            [one.address for one in own] + [one.broadcast for one in own if one.prefix < 31]
        )
        try:
            for interface in self._interfaces:
                for port in (wire.SERVER_PORT, wire.ORDER_PORT):
                    self._sockets[interface.address, port] = _bound(interface.address, port)
        except BaseException:
            self.close()
            raise
        for (address, port), sock in self._sockets.items():
            if port == wire.SERVER_PORT:
                loop.add_reader(sock, self._receive, sock, address)
                self._record(facts.Listening("", "bootinfo", address, port))

    def close(self) -> None:
        """Safe to call twice. Machines that wait are remembered by the engine."""
        for task in self._asking.values():
            task.cancel()
        for (_, port), sock in self._sockets.items():
            if port == wire.SERVER_PORT and sock.fileno() >= 0:
                self._loop.remove_reader(sock)
            sock.close()
        for handle in (*self._kept_away.values(), *([self._timer[1]] if self._timer else [])):
            handle.cancel()
        self._sockets.clear()
        self._kept_away.clear()
        self._timer = None

    async def order(self, target: str, boot: Boot) -> OrderOver | str:
        """Send an order, and what became of it within ORDER_PATIENCE; or why it cannot be sent."""
        now = time.monotonic_ns()
        effects = self._server.order(target, boot, now)
        if isinstance(effects, str):
            return effects
        address = next(effect.address for effect in effects if isinstance(effect, engine.Ordered))
        before = self._results.pop(address, None)
        if before is not None and not before.done():
            before.set_result(f"a newer order to {address} took its place")
        result: asyncio.Future[OrderOver | str] = self._loop.create_future()
        self._results[address] = result
        self._do(effects, now)
        try:
            async with asyncio.timeout(2 * engine.ORDER_PATIENCE / S):
                return await result
        except TimeoutError:
            return f"{address} is another machine now"

    def waiting(self) -> list[engine.Waiting]:
        """The machines that wait."""
        return self._server.waiting(time.monotonic_ns())

    def seen_starting(self, machine: str) -> None:
        """A machine begins a boot (its DISCOVER was heard)."""
        self._do(self._server.seen_starting(machine), time.monotonic_ns())

    # --- in -----------------------------------------------------------------------------------------------------

    def _receive(self, sock: socket.socket, ours: str) -> None:
        for _ in range(TURN):
            try:
                data, (address, _) = sock.recvfrom(LARGEST)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error, or the interface went away; the socket goes on
                continue
            now = time.monotonic_ns()
            self._count(address, now)
            effects = self._server.receive(data, address, now, self._machine_at(address))
            if effects:
                self._heard_by.put(address, ours)
                self._do(effects, now)

    def _count(self, address: str, now: Ns) -> None:
        if now // S != self._second:
            self._second = now // S
            self._counts.clear()
        count = self._counts[address] = self._counts.get(address, 0) + 1
        if count == FLOOD and len(self._kept_away) < KEPT_AWAY_MOST and address not in self._kept_away:
            self._kept_away[address] = self._loop.call_later(KEPT_AWAY, self._let_in, address)
            self._filter()
            because = f"more than {FLOOD} datagrams a second: kept away for {KEPT_AWAY:.0f} s"
            self._record(facts.Refused(self._machine_at(address), "bootinfo", address, because))

    def _let_in(self, address: str) -> None:
        self._kept_away.pop(address, None)
        self._filter()

    def _filter(self) -> None:
        """Where the kernel will not have the filter, the engine's rates still hold."""
        program = bpf.not_from(tuple(self._kept_away))
        for (_, port), sock in self._sockets.items():
            if port == wire.SERVER_PORT:
                with contextlib.suppress(OSError):
                    bpf.attach(sock, program)

    # --- out ----------------------------------------------------------------------------------------------------

    def _do(self, effects: Sequence[engine.Effect], now: Ns) -> None:
        for effect in effects:
            match effect:
                case engine.Send(data, address, port):
                    self._send(data, address, port)
                case engine.Decide(asker, anew):
                    self._decide(asker, anew, now)
                case _:
                    self._tell(effect, now)
        self._look_later(now)

    def _ours(self, address: str) -> str:
        """Which of our addresses a machine knows us by."""
        known = self._heard_by.get(address)
        if known is not None:
            return known
        near = (one for one in self._interfaces if any(own.holds(address) for own in one.addresses))
        return next(near, self._interfaces[0]).address

    def _send(self, data: bytes, address: str, port: int) -> None:
        sock = self._sockets.get((self._ours(address), port))
        try:
            if sock is not None:
                sock.sendto(data, (address, wire.CLIENT_PORT))
        except OSError:
            self.errors += 1

    def _decide(self, asker: Asker, anew: bool, now: Ns) -> None:
        ours = self._ours(asker.address)
        answer = None if anew else self._decisions.known(asker, ours)
        if answer is not None:
            self._do(self._server.answer(asker, answer, now), now)
        elif asker not in self._asking and len(self._asking) < engine.PENDING:
            self._asking[asker] = self._loop.create_task(self._find_out(asker, ours))

    async def _find_out(self, asker: Asker, ours: str) -> None:
        try:
            await self._decisions.ask(asker, ours)
            answer = self._decisions.known(asker, ours) or NoAnswer("nobody has decided yet; it will ask again")
            now = time.monotonic_ns()
            self._do(self._server.answer(asker, answer, now), now)
        finally:
            self._asking.pop(asker, None)

    def _look_later(self, now: Ns) -> None:
        due = self._server.deadline
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = due, self._loop.call_later(max(0, due - now) / S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic_ns()
        self._do(self._server.tick(now), now)

    # --- facts --------------------------------------------------------------------------------------------------

    def _tell(self, news: engine.Effect, now: Ns) -> None:
        match news:
            case engine.Asked(asker, again):
                how = "sealed" if asker.sealed else "host key" if asker.host_key else "plain"
                self._facts.tell(facts.BootinfoAsked(asker.machine, asker.address, how, asker.version, again), now)
            case engine.Answered(asker, answer, again):
                text = say(answer.boot) if answer.boot is not None else "nothing"
                because = printable(answer.because)
                self._facts.tell(facts.BootinfoAnswered(asker.machine, asker.address, text, because, again), now)
            case engine.Unanswered(asker, because):
                self._facts.tell(facts.Silent(asker.machine, "bootinfo", printable(because), asker.address), now)
            case engine.Ordered(address, machine, boot, attempt):
                self._record(facts.OrderSent(machine, address, say(boot), attempt))
            case engine.OrderOver(address, machine, boot, taken, how):
                self._record(facts.OrderEnded(machine, address, say(boot), taken, how))
                result = self._results.pop(address, None)
                if result is not None and not result.done():
                    result.set_result(news)
            case engine.FellSilent(address, machine, seconds):
                self._record(facts.FellSilent(machine, address, seconds))
            case engine.Refused(address, because, detail):
                who = self._machine_at(address)
                self._refusals.tell(facts.Refused(who, "bootinfo", address, printable(because), detail.hex()), now)
            case engine.Send() | engine.Decide():
                raise AssertionError("not news")


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if port == wire.SERVER_PORT:
            set_receive_buffer(made, BUFFER)
        made.bind((address, port))
    except OSError as error:
        made.close()
        if error.errno != errno.EADDRINUSE:
            raise
        what, fix = taken("udp", port)
        raise PortInUse(f"{what}; bootinfo clients know no other", fix) from None
    return made
