"""bootinfo, the machine's side: asks what to do, waits where it is told to, and takes orders.

The rules are those of emuboot and deterboot, made whole: ask from CLIENT_PORT, again after 2, 4, 8, 16 and 32 s;
believe replies from the server's SERVER_PORT, and while waiting orders from its ORDER_PORT or SERVER_PORT; meanwhile
ask again every minute, since an order can be lost. An order taken is acknowledged, which plain servers overlook. A
server that never answers leads to what was configured for that case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bootwire.engine import US, Ns, S
from bootwire.wire import bootinfo as wire
from bootwire.wire import bootinfo_seal as seal
from bootwire.wire.bootinfo import Auto, Boot, Order, Reply, Wait
from bootwire.wire.reader import WireError

WAITS: Final = (2 * S, 4 * S, 8 * S, 16 * S, 32 * S)
"""After each question: libstand's sendrecv as emuboot uses it, which gives up after 62 s."""

POLL: Final = 60 * S  # between questions while waiting; deterboot asks every 5 s, emuboot never
ASK_AGAIN: Final = 5 * S  # after the reply AUTO to a question (bootinfoclient)


@dataclass(frozen=True, slots=True)
class Send:
    """A datagram from CLIENT_PORT to a port of the server, SERVER_PORT."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ignored:
    """News: a datagram was not believed."""

    because: str


@dataclass(frozen=True, slots=True)
class WaitsNow:
    """News: the server told the machine to wait."""


@dataclass(frozen=True, slots=True)
class Told:
    """The end: this is to be done. by: the reply to a question, or an order."""

    boot: Boot
    by: Literal["reply", "order"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The end: there is nothing to do for us. fallback: what was configured for that case."""

    because: str
    fallback: Boot | None


Effect = Send | Ignored | WaitsNow
Outcome = Told | Failed


@dataclass(frozen=True, slots=True)
class Settings:
    """server    dotted
    host_key  say who we are with a KEYED_REQUEST, b"" does not
    identity key  seal requests, and believe only what is sealed with the same key; "" and b"" do not
    epoch_us  what to add to `now` in microseconds to get microseconds since the Unix epoch, about: stamps of seals
    patience  how often the waits are gone through before it gives up, None: for ever with the last wait
    wait      False: Wait is an answer like any other
    fallback  what to do when nobody answers or the server has nothing for us
    """

    server: str
    host_key: bytes = b""
    identity: str = ""
    key: bytes = b""
    epoch_us: int = 0
    patience: int | None = 1
    wait: bool = True
    fallback: Boot | None = None


class Client:
    """Asks one server: `start`, then `receive`, and `tick` when `deadline` says so, until `outcome` is set."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._sends = 0  # of the question under way
        self._rounds = 0
        self._offset_us = settings.epoch_us  # of our stamps; the server's clock corrects it
        self._stamp = 0  # of the last question
        self._server_stamp = 0  # of the last thing believed
        self._clock_told = False  # since the last answer
        self.waiting = False
        self.deadline: Ns | None = None
        self.outcome: Outcome | None = None

    def start(self, now: Ns) -> list[Effect]:
        return [self._ask(now)]

    def tick(self, now: Ns) -> list[Effect]:
        if self.outcome is not None or self.deadline is None or now < self.deadline:
            return []
        if self._sends >= len(WAITS) and not self.waiting:
            self._rounds += 1
            patience = self.settings.patience
            if patience is not None and self._rounds >= patience:
                seconds = sum(WAITS) * self._rounds // S
                who = self.settings.server
                self._end(Failed(f"{who} has not answered in {seconds} s", self.settings.fallback))
                return []
            self._sends = 0 if patience is not None else self._sends
        return [self._ask(now)]

    def receive(self, data: bytes, source: tuple[str, int], now: Ns) -> list[Effect]:
        """A datagram that came to CLIENT_PORT, from anybody."""
        if self.outcome is not None:
            return []
        address, port = source
        if address != self.settings.server:
            return [Ignored(f"from {address}, which was not asked")]
        try:
            message = wire.parse(data)
        except WireError as error:
            return [Ignored(str(error))]
        match message:
            case Reply(boot, _, status) if port == wire.SERVER_PORT:
                return self._replied(data, boot, status, now)
            case Order(boot, _, status) if port in (wire.SERVER_PORT, wire.ORDER_PORT):
                return self._ordered(data, boot, status, now)
            case Reply() | Order():
                return [Ignored(f"from port {port}, which no server uses for that")]
            case _:
                return [Ignored("neither a reply nor an order")]

    # --- asking -------------------------------------------------------------------------------------------------

    def _ask(self, now: Ns) -> Send:
        wait = POLL if self.waiting else WAITS[min(self._sends, len(WAITS) - 1)]
        self._sends += 1
        self.deadline = now + wait
        own = self.settings
        if own.key:
            self._stamp = max(self._stamp + 1, self._offset_us + now // US)
            data = wire.emit(wire.Request(seal.claim(own.identity)))
            return Send(seal.sealed(data, own.key, own.identity, self._stamp))
        return Send(wire.emit(wire.KeyedRequest(own.host_key) if own.host_key else wire.Request()))

    def _end(self, outcome: Outcome) -> None:
        self.outcome, self.deadline = outcome, None

    # --- what comes back ----------------------------------------------------------------------------------------

    def _replied(self, data: bytes, boot: Boot, status: int, now: Ns) -> list[Effect]:
        own = self.settings
        if own.key:
            stamp = seal.opened(data, own.key, own.identity, self._stamp)
            if stamp is None:
                return [Ignored("a reply without a seal that holds for our question")]
            self._server_stamp = stamp
            if status == seal.CLOCK:
                self._offset_us, self._stamp = stamp - now // US, stamp
                at_once: list[Effect] = [] if self._clock_told else [self._ask(now)]
                self._clock_told = True
                return [Ignored("our clock is off: the server's is taken"), *at_once]
        self._clock_told, self._rounds, self._sends = False, 0, 0
        if status != wire.SUCCESS:
            self._end(Failed("the server has nothing for this machine", own.fallback))
            return []
        match boot.action:
            case Wait() if own.wait:
                return self._wait(now)
            case Auto():
                self.waiting, self.deadline = False, now + ASK_AGAIN
                return []
            case _:
                self._end(Told(boot, "reply"))
                return []

    def _wait(self, now: Ns) -> list[Effect]:
        news: list[Effect] = [] if self.waiting else [WaitsNow()]
        self.waiting, self.deadline = True, now + POLL
        return news

    def _ordered(self, data: bytes, boot: Boot, status: int, now: Ns) -> list[Effect]:
        own = self.settings
        stamp = 0
        if not self.waiting:
            return [Ignored("an order, and we do not wait for one")]
        if own.key:
            opened = seal.opened(data, own.key, own.identity)
            if opened is None:
                return [Ignored("an order without a seal that holds")]
            if opened <= self._server_stamp:
                return [Ignored("an order that is not new")]
            stamp = self._server_stamp = opened
        if status != wire.SUCCESS:
            return [Ignored(f"an order of status {status}")]
        effects: list[Effect] = [self._acknowledge(stamp)]
        match boot.action:
            case Auto():
                self.waiting = False
                return [*effects, self._ask(now)]
            case Wait():
                return [*effects, *self._wait(now)]
            case _:
                self._end(Told(boot, "order"))
                return effects

    def _acknowledge(self, order_stamp: int) -> Send:
        own = self.settings
        if not own.key:
            return Send(wire.emit(wire.Ack()))
        data = wire.emit(wire.Ack(seal.claim(own.identity)))
        self._stamp += 1
        return Send(seal.sealed(data, own.key, own.identity, self._stamp, order_stamp))
