"""bootinfo, the server's side: answers machines that ask what to do, keeps those that wait, and sends them orders.

What Emulab's server leaves open is closed here: a datagram counts for what it holds and no more; an answer is never
larger than its question; one address gets no more than RATE answers a second and takes nothing from others; all tables
are bounded; and where machine and server share a key, seals (wire.bootinfo_seal) tell forged and repeated datagrams.

Decisions are not made here: `Decide` asks for one, `answer` brings it, now or later.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bootwire.engine import US, Ns, S
from bootwire.engine.lru import Lru
from bootwire.wire import bootinfo as wire
from bootwire.wire import bootinfo_seal as seal
from bootwire.wire.bootinfo import Ack, Auto, Boot, Info, KeyedRequest, Reboot, Request, Restart, Unknown, Wait
from bootwire.wire.ip import v4_octets
from bootwire.wire.reader import WireError

RATE: Final = 4  # answers a second to one address: clients wait 2 s (emuboot) or 5 s (deterboot) between questions
BURST: Final = 16  # and at once: some seconds of a machine that starts over again and again
NEWCOMERS: Final = 500  # a second of addresses that nobody knows, all together: whole racks, and what a forger gets
NEWCOMERS_BURST: Final = 4_096
SOURCES: Final = 4_096  # addresses whose rate is remembered
WAITING: Final = 4_096  # machines that wait, or have an order coming
PENDING: Final = 1_024  # questions whose decision is not made yet
PENDING_TIME: Final = 30 * S  # a decision that takes longer is nobody's any more: clients have asked again since

ORDER_SENDS: Final = (0, 2 * S, 6 * S, 14 * S)  # after the order was given; Emulab sends it once
ORDER_PATIENCE: Final = 20 * S  # libreboot waits as long for PXEWAKEUP before it pulls the plug

SAME_QUESTION: Final = 10 * S  # MINEVENTTIME: an equal answer within it is news to nobody
SAME_WAIT: Final = 600 * S  # the same for machines that go on waiting
POLLS_MISSED: Final = 3  # of a machine that kept asking: then it has fallen silent
POLL_AT_LEAST: Final = 20 * S

SEALED_KEPT: Final = 3_600 * S  # so long after a seal, plain questions from that address do not touch what is known
WINDOW_US: Final = 120_000_000  # a stamp may be so far off our clock, either way (Kerberos takes 300 s)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    address   dotted
    machine   who it is as far as we know: its MAC, or the identity of its seal where that holds; "" if nobody knows
    host_key  what a KEYED_REQUEST says, readable on the way; b"" in other requests
    sealed    its seal holds
    version   wire.CURRENT, or wire.OLD: it does not know Wait
    """

    address: str
    machine: str = ""
    host_key: bytes = b""
    sealed: bool = False
    version: int = wire.CURRENT


@dataclass(frozen=True, slots=True)
class Answer:
    """What a machine is told. boot: None says FAIL, so that it goes on with what it has."""

    boot: Boot | None
    because: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A machine is told nothing, so that another server may."""

    because: str


# --- effects -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """A datagram to CLIENT_PORT of an address, from SERVER_PORT or ORDER_PORT."""

    data: bytes
    address: str
    from_port: int


@dataclass(frozen=True, slots=True)
class Decide:
    """Find out what this machine shall do, then call `answer`.

    anew  it asks because of an order: what was decided before does not count
    """

    asker: Asker
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """News: a machine asks. again: it has been told the same a moment ago."""

    asker: Asker
    again: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """News: it was told. again: the same as a moment ago, or it goes on waiting."""

    asker: Asker
    answer: Answer
    again: bool


@dataclass(frozen=True, slots=True)
class Unanswered:
    """News: it was told nothing."""

    asker: Asker
    because: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """News: an order left. attempt: 1 for the first."""

    address: str
    machine: str
    boot: Boot
    attempt: int


@dataclass(frozen=True, slots=True)
class OrderOver:
    """News: an order was taken, or no sign of that came. how: a sentence fragment."""

    address: str
    machine: str
    boot: Boot
    taken: bool
    how: str


@dataclass(frozen=True, slots=True)
class FellSilent:
    """News: a waiting machine that kept asking does not any more. seconds: since it last did."""

    address: str
    machine: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Refused:
    """News: a datagram was not taken. detail: its first octets."""

    address: str
    because: str
    detail: bytes = b""


Effect = Send | Decide | Asked | Answered | Unanswered | Ordered | OrderOver | FellSilent | Refused


# --- what is remembered ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Source:
    """An address's allowance. told: when it was last said that it asks too much; dropped: since then."""

    left: float
    when: Ns
    told: Ns | None = None
    dropped: int = 0


@dataclass(slots=True)
class _Pending:
    """A question whose decision is not made. stamp: of its seal, 0 without one."""

    stamp: int
    since: Ns


@dataclass(slots=True)
class _Order:
    """polled: the machine had kept asking before; sent: how many left so far; stamps: of their seals."""

    boot: Boot
    given: Ns
    polled: bool
    sent: int = 0
    stamps: list[int] = field(default_factory=list)

    @property
    def deadline(self) -> Ns:
        return self.given + (ORDER_SENDS[self.sent] if self.sent < len(ORDER_SENDS) else ORDER_PATIENCE)


@dataclass(slots=True)
class _Machine:
    """A machine that asked. gap: between its last two questions while it waited, 0 if it has not asked twice."""

    asker: Asker
    asked: Ns
    told: Answer | None = None
    told_at: Ns = 0
    waits: bool = False
    gap: Ns = 0
    silent: bool = False
    order: _Order | None = None
    obeyed: bool = False  # an order was taken, and it has not asked since
    looked_at: Ns | None = None  # when `tick` will look at it

    @property
    def deadline(self) -> Ns | None:
        """When it is late, or its order is due."""
        if self.order is not None:
            return self.order.deadline
        if self.waits and self.gap and not self.silent:
            return self.asked + max(POLL_AT_LEAST, POLLS_MISSED * self.gap)
        return None

    def just_told(self, now: Ns) -> bool:
        return self.told is not None and now - self.told_at < SAME_QUESTION


@dataclass(frozen=True, slots=True)
class Waiting:
    """A machine that waits, for people. seconds: since it last asked."""

    address: str
    machine: str
    seconds: int
    because: str
    silent: bool


class Server:
    """Answers and orders. `receive`, `answer`, `order`, `seen_starting`, `tick`; `deadline` says when that is due.

    keys       identity -> key for seals; "*" is everybody's who has none of its own
    demand     tell plain machines nothing but FAIL
    epoch_us   what to add to `now` in microseconds to get microseconds since the Unix epoch: stamps of seals
    unwelcome  addresses that no answer may go to: our own, and broadcast addresses of our networks
    """

    def __init__(
        self,
        keys: Mapping[str, bytes] | None = None,
        *,
        demand: bool = False,
        epoch_us: int = 0,
        unwelcome: frozenset[str] = frozenset(),
    ) -> None:
        self._keys = dict(keys or {})
        self._demand = demand
        self._epoch_us = epoch_us
        self.unwelcome = unwelcome
        self._sources: Lru[str, _Source] = Lru(SOURCES)
        self._newcomers = _Source(NEWCOMERS_BURST, 0)
        self._pending: Lru[Asker, _Pending] = Lru(PENDING)
        self._machines: dict[str, _Machine] = {}  # by address, the least recently heard first
        self._due: list[tuple[Ns, str]] = []  # a heap: when to look at which address, not before it is worth it
        self._stamps: Lru[str, int] = Lru(WAITING)  # identity -> its last good stamp
        self._first_stamp: int | None = None
        self._last_stamp = 0

    @property
    def deadline(self) -> Ns | None:
        return self._due[0][0] if self._due else None

    def waiting(self, now: Ns) -> list[Waiting]:
        """The machines that wait, the most recently heard last."""
        return [
            Waiting(
                address, one.asker.machine, (now - one.asked) // S, one.told.because if one.told else "", one.silent
            )
            for address, one in self._machines.items()
            if one.waits
        ]

    # --- questions ----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, address: str, now: Ns, machine: str = "") -> list[Effect]:
        """One datagram that came to SERVER_PORT. machine: the MAC that is known to have this address, or ""."""
        refused = self._unwelcome(address) or self._too_many(address, now, known=bool(machine))
        if refused is not None:
            return refused
        try:
            message = wire.parse(data)
        except WireError as error:
            return [Refused(address, str(error), data[:32])]
        match message:
            case Request(sent, version) | Info(sent, version):
                name = seal.identity(sent)
                if name is not None and self._keys:
                    return self._sealed(data, name, address, version, now)
                return self._ask(Asker(address, machine, version=version), 0, now)
            case KeyedRequest(key, version):
                return self._ask(Asker(address, machine, key, version=version), 0, now)
            case Ack(sent):
                return self._acknowledged(data, seal.identity(sent), address)
            case _:
                return [Refused(address, "a reply or an order, which only servers send", data[:32])]

    def answer(self, asker: Asker, answer: Answer | NoAnswer, now: Ns) -> list[Effect]:
        """The decision that `Decide` asked for. Nothing is sent if nobody waits for it any more."""
        pending = self._pending.pop(asker)
        if pending is None or now - pending.since > PENDING_TIME:
            return []
        if isinstance(answer, NoAnswer):
            return [Unanswered(asker, answer.because)]
        return self._tell(asker, answer, pending.stamp, now)

    def _ask(self, asker: Asker, stamp: int, now: Ns) -> list[Effect]:
        if self._demand and not asker.sealed:
            answer = Answer(None, "it has no seal, and this server answers none without")
            return [self._reply(asker, None, stamp, now), Answered(asker, answer, again=False)]
        machine = self._heard(asker, now)
        effects: list[Effect] = [Asked(asker, again=machine.waits or machine.just_told(now))]
        if machine.order is not None:
            ordered = self._asked_after_order(machine, stamp, now)
            effects += ordered
            if isinstance(ordered[0], Send):
                return effects
        pending = self._pending.get(asker)
        if pending is not None and now - pending.since <= PENDING_TIME:
            pending.stamp = stamp  # a decision is under way; the newest question gets it
            return effects
        self._pending.put(asker, _Pending(stamp, now))
        anew, machine.obeyed = machine.obeyed, False
        return [*effects, Decide(asker, anew)]

    def _heard(self, asker: Asker, now: Ns) -> _Machine:
        """What is known of the machine, now the last heard one."""
        machine = self._machines.get(asker.address)
        if machine is not None and machine.asker.sealed and not asker.sealed and now - machine.asked < SEALED_KEPT:
            return _Machine(asker, now)  # it may be forged: it is answered, and leaves no trace
        self._machines.pop(asker.address, None)
        if machine is None or "" != machine.asker.machine != asker.machine:
            self._make_room()
            machine = _Machine(asker, now)
        else:
            if machine.waits and machine.order is None:
                machine.gap = now - machine.asked
            machine.asker, machine.asked, machine.silent = asker, now, False
        self._machines[asker.address] = machine
        return machine

    def _make_room(self) -> None:
        """Forget the one heard longest ago; one that has an order coming only if all have."""
        if len(self._machines) >= WAITING:
            free = (address for address, one in self._machines.items() if one.order is None)
            del self._machines[next(free, next(iter(self._machines)))]

    def _tell(self, asker: Asker, answer: Answer, stamp: int, now: Ns) -> list[Effect]:
        boot = answer.boot
        if boot is not None and isinstance(boot.action, Wait) and asker.version == wire.OLD:
            answer = Answer(None, f"{answer.because}; but a client of version 0 does not know how to wait")
            boot = None
        machine = self._machines.get(asker.address)
        again = False
        if machine is not None and machine.asker == asker:
            same = machine.told is not None and machine.told.boot == boot
            waits = boot is not None and isinstance(boot.action, Wait)
            again = same and (machine.just_told(now) or (waits and now - machine.told_at < SAME_WAIT))
            machine.told, machine.waits = answer, waits
            if not (again and waits):
                machine.told_at = now
            self._look_later(machine)
        return [self._reply(asker, boot, stamp, now), Answered(asker, answer, again)]

    def _reply(self, asker: Asker, boot: Boot | None, stamp: int, now: Ns) -> Send:
        message = (
            wire.Reply(Boot(Unknown()), asker.version, wire.FAIL) if boot is None else wire.Reply(boot, asker.version)
        )
        return self._send(message, asker, wire.SERVER_PORT, self._stamp(now), stamp)

    def _send(self, message: wire.Message, asker: Asker, from_port: int, stamp: int, answers: int = 0) -> Send:
        data = wire.emit(message)
        if asker.sealed:
            data = seal.sealed(data, self._key(asker.machine) or b"", asker.machine, stamp, answers)
        return Send(data, asker.address, from_port)

    # --- seals --------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> bytes | None:
        return self._keys.get(name) or self._keys.get("*")

    def _stamp(self, now: Ns) -> int:
        self._last_stamp = max(self._last_stamp + 1, self._epoch_us + now // US)
        return self._last_stamp

    def _sealed(self, data: bytes, name: str, address: str, version: int, now: Ns) -> list[Effect]:
        key = self._key(name)
        if key is None:
            return [Refused(address, f"sealed by {name}, and there is no key for that name")]
        stamp = seal.opened(data, key, name)
        if stamp is None:
            return [Refused(address, f"the seal of {name} does not hold: another key, or a forger")]
        asker = Asker(address, name, sealed=True, version=version)
        if not self._is_new(name, stamp, now):
            message = wire.Reply(Boot(Unknown()), version, seal.CLOCK)
            send = self._send(message, asker, wire.SERVER_PORT, self._stamp(now), stamp)
            return [send, Refused(address, f"{name}'s stamp is not new: told it our clock, or somebody repeats it")]
        return self._ask(asker, stamp, now)

    def _is_new(self, name: str, stamp: int, now: Ns) -> bool:
        """Later than its last one, within WINDOW_US of our clock, and from after our start: what came before that, we
        would not know again."""
        ours = self._epoch_us + now // US
        if self._first_stamp is None:
            self._first_stamp = ours
        last = self._stamps.get(name)
        if stamp <= (self._first_stamp if last is None else last) or abs(stamp - ours) > WINDOW_US:
            return False
        self._stamps.put(name, stamp)
        return True

    # --- orders -------------------------------------------------------------------------------------------------

    def order(self, target: str, boot: Boot, now: Ns) -> list[Effect] | str:
        """Send an order to a waiting machine, again until it reacts or ORDER_PATIENCE is over (`OrderOver`).

        target  a machine, or an address; an address gets it even if nothing is known of it, since Emulab's own clients
                ask once and then wait without a word. A newer order takes the place of an older one.
        Returns why it cannot be sent, as a sentence fragment, instead of effects.
        """
        address = next((at for at, one in self._machines.items() if one.asker.machine == target and one.waits), target)
        if self._unwelcome(address) is not None:
            known = [one for one in self._machines.values() if one.asker.machine == target]
            if known and (told := known[-1].told):
                ago = (now - known[-1].asked) // S
                return f"{target} does not wait: {ago} s ago it was told something else ({told.because})"
            return f"{target} does not wait, and no address of it is known"
        machine = self._machines.get(address)
        if machine is None:
            self._make_room()
            machine = self._machines[address] = _Machine(Asker(address), now)
        if self._demand and not machine.asker.sealed:
            return f"{address} has not shown a seal, and this server deals with none without"
        machine.order = _Order(boot, now, polled=machine.gap > 0)
        return self._send_order(machine, now)

    def seen_starting(self, machine: str) -> list[Effect]:
        """A machine has begun a boot from its firmware (its DISCOVER was heard): it waits no more, and an order to
        start over was obeyed."""
        effects: list[Effect] = []
        for one in self._machines.values():
            if one.asker.machine == machine:
                one.waits = False
                if one.order is not None and isinstance(one.order.boot.action, Reboot | Restart):
                    effects.append(self._over(one, True, "it starts over"))
        return effects

    def _send_order(self, machine: _Machine, now: Ns) -> list[Effect]:
        order = machine.order
        assert order is not None
        order.sent += 1
        stamp = self._stamp(now)
        order.stamps.append(stamp)
        send = self._send(wire.Order(order.boot), machine.asker, wire.ORDER_PORT, stamp)
        self._look_later(machine)
        return [send, Ordered(machine.asker.address, machine.asker.machine, order.boot, order.sent)]

    def _asked_after_order(self, machine: _Machine, stamp: int, now: Ns) -> list[Effect]:
        """A question while an order is under way: it is over. A first effect Send is the reply, else one is wanted.

        A machine that asks again has obeyed AUTO, and what it asks is what to do now. Other orders it may not have
        heard: one that kept asking while it waited (deterboot does, and listens to nothing else) is told by the reply.
        One that never did asks because it has started over.
        """
        order = machine.order
        assert order is not None
        obeyed = isinstance(order.boot.action, Auto)
        if obeyed or (isinstance(order.boot.action, Reboot | Restart) and not order.polled):
            return [self._over(machine, True, "it asks again")]
        machine.waits = isinstance(order.boot.action, Wait)
        machine.told, machine.told_at = Answer(order.boot, "ordered"), now
        reply = self._reply(machine.asker, order.boot, stamp, now)
        return [reply, self._over(machine, True, "it asked, and the reply was the order")]

    def _acknowledged(self, data: bytes, name: str | None, address: str) -> list[Effect]:
        machine = self._machines.get(address)
        if machine is None or machine.order is None:
            return []  # a late copy, or netdisk's: nobody answers an acknowledgement
        if machine.asker.sealed:
            key = self._key(machine.asker.machine) if name == machine.asker.machine else None
            stamps = machine.order.stamps if key else []
            if not any(seal.opened(data, key or b"", name or "", stamp) is not None for stamp in stamps):
                return [Refused(address, "acknowledges an order without a seal that holds")]
        machine.waits = isinstance(machine.order.boot.action, Wait)
        return [self._over(machine, True, "it says so")]

    @staticmethod
    def _over(machine: _Machine, taken: bool, how: str) -> OrderOver:
        order = machine.order
        assert order is not None
        machine.order, machine.obeyed = None, taken
        return OrderOver(machine.asker.address, machine.asker.machine, order.boot, taken, how)

    # --- time ---------------------------------------------------------------------------------------------------

    def tick(self, now: Ns) -> list[Effect]:
        """What is due: orders sent again or given up, machines that have fallen silent."""
        effects: list[Effect] = []
        while self._due and self._due[0][0] <= now:
            _, address = heapq.heappop(self._due)
            machine = self._machines.get(address)
            if machine is None:
                continue
            machine.looked_at = None
            when = machine.deadline
            if when is not None and when <= now:
                effects += self._late(machine, now)
            self._look_later(machine)
        return effects

    def _late(self, machine: _Machine, now: Ns) -> list[Effect]:
        if machine.order is None:
            machine.silent = True
            return [FellSilent(machine.asker.address, machine.asker.machine, (now - machine.asked) // S)]
        if machine.order.sent < len(ORDER_SENDS):
            return self._send_order(machine, now)
        how = f"sent {len(ORDER_SENDS)} times in {ORDER_PATIENCE // S} s; plain clients that boot at once give none"
        return [self._over(machine, False, how)]

    def _look_later(self, machine: _Machine) -> None:
        """See to it that `tick` looks at the machine when something is due; too early does no harm."""
        when = machine.deadline
        if when is None or (machine.looked_at is not None and machine.looked_at <= when):
            return
        machine.looked_at = when
        heapq.heappush(self._due, (when, machine.asker.address))
        if len(self._due) > 4 * WAITING:  # entries of machines that were forgotten
            self._due = [(at, address) for address, one in self._machines.items() if (at := one.looked_at) is not None]
            heapq.heapify(self._due)

    # --- who is listened to -------------------------------------------------------------------------------------

    def _unwelcome(self, address: str) -> list[Effect] | None:
        """Where no answer may go: 0/8, loopback unless we are there, multicast, broadcast, ourselves."""
        try:
            first = v4_octets(address)[0]
        except WireError:
            return [Refused(address, "not an IPv4 address")]
        if address in self.unwelcome or not 0 < first < 224:
            return [Refused(address, "an address that no answer may go to")]
        return None

    def _too_many(self, address: str, now: Ns, *, known: bool) -> list[Effect] | None:
        source = self._sources.get(address)
        if source is None:
            if not known and not _take(self._newcomers, NEWCOMERS, NEWCOMERS_BURST, now):
                return self._dropped(self._newcomers, "", "many strangers at once", now)
            source = _Source(BURST, now)
        if _take(source, RATE, BURST, now):
            self._sources.put(address, source)
            return None
        self._sources.put(address, source)
        return self._dropped(source, address, f"more than {RATE} a second", now)

    @staticmethod
    def _dropped(source: _Source, address: str, why: str, now: Ns) -> list[Effect]:
        """Nothing, or once a minute that datagrams of a source are dropped."""
        source.dropped += 1
        if source.told is not None and now - source.told < 60 * S:
            return []
        count = f" ({source.dropped} dropped)" if source.told is not None else ""
        source.told, source.dropped = now, 0
        return [Refused(address, f"{why}: the others are dropped{count}")]


def _take(source: _Source, rate: int, burst: int, now: Ns) -> bool:
    """One from a token bucket."""
    source.left = min(burst, source.left + (now - source.when) * rate / S)
    source.when = now
    if source.left < 1:
        return False
    source.left -= 1
    return True
