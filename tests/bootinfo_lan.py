"""A bootinfo server and machines that ask it, in virtual time, over a network that loses datagrams."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from bootinfo_peers import Peer
from bootwire.engine import MS
from bootwire.engine import bootinfo as engine
from bootwire.engine.bootinfo import Answer, Asker, NoAnswer, Server
from bootwire.engine.bootinfo_client import Client, Failed, Told
from bootwire.engine.bootinfo_client import Send as ClientSend
from bootwire.wire.bootinfo_text import say

SERVER = "10.9.0.1"
LATENCY = 1 * MS


class Ours(Peer):
    """Our own client as one of the peers."""

    def __init__(self, client: Client) -> None:
        super().__init__(SERVER)
        self.client = client
        self.news: list[object] = []

    def start(self, now: int) -> None:
        self._do(self.client.start(now))

    def receive(self, data: bytes, source: tuple[str, int], now: int) -> None:
        self._do(self.client.receive(data, source, now))

    def tick(self, now: int) -> None:
        self._do(self.client.tick(now))

    def _do(self, effects: list) -> None:
        for effect in effects:
            if isinstance(effect, ClientSend):
                self.asked += 1
                self.sends.append((effect.data, self.port))
            else:
                self.news.append(effect)
        self.deadline = self.client.deadline
        match self.client.outcome:
            case Told(boot, by):
                self.did = f"{say(boot)}, by {by}"
            case Failed(because, fallback):
                self.did = f"failed: {because}" + (f"; {say(fallback)}" if fallback else "")


@dataclass
class Network:
    """decide: what the server's policy says. loss: share of datagrams lost, both ways. news: what the engine told."""

    server: Server
    decide: Callable[[Asker], Answer | NoAnswer]
    loss: float = 0.0
    seed: int = 0
    now: int = 0
    news: list[object] = field(default_factory=list)
    machines: dict[str, Peer] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # address -> MAC
    wire: list[tuple[int, bytes, tuple[str, int], tuple[str, int]]] = field(default_factory=list)  # all that was sent
    _flying: list[tuple[int, bytes, tuple[str, int], tuple[str, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def add(self, address: str, peer: Peer, mac: str = "") -> Peer:
        self.machines[address] = peer
        if mac:
            self.names[address] = mac
        peer.start(self.now)
        self._collect(address, peer)
        return peer

    def send(self, data: bytes, source: tuple[str, int], to: tuple[str, int]) -> None:
        self.wire.append((self.now, data, source, to))
        if self._random.random() >= self.loss:
            self._flying.append((self.now + LATENCY, data, source, to))

    def do(self, effects: list[engine.Effect]) -> None:
        for effect in effects:
            match effect:
                case engine.Send(data, address, port):
                    self.send(data, (SERVER, port), (address, 9696))
                case engine.Decide(asker):
                    self.do(self.server.answer(asker, self.decide(asker), self.now))
                case _:
                    self.news.append(effect)

    def run(self, until: int, condition: Callable[[], object] = lambda: False) -> bool:
        """Until the moment, or until the condition holds: True."""
        while not condition():
            times = [flying[0] for flying in self._flying]
            times += [when for peer in self.machines.values() if (when := peer.deadline) is not None]
            times += [when for when in (self.server.deadline,) if when is not None]
            if not times or min(times) > until:
                self.now = until
                return bool(condition())
            self.now = max(self.now, min(times))
            self._step()
        return True

    def _step(self) -> None:
        arrived = [each for each in self._flying if each[0] <= self.now]
        self._flying = [each for each in self._flying if each[0] > self.now]
        for _, data, source, (address, port) in arrived:
            if address == SERVER:
                if port == 6969:
                    self.do(self.server.receive(data, source[0], self.now, self.names.get(source[0], "")))
            elif (peer := self.machines.get(address)) is not None and peer.listens and port == 9696:
                peer.receive(data, source, self.now)
                self._collect(address, peer)
        if self.server.deadline is not None and self.server.deadline <= self.now:
            self.do(self.server.tick(self.now))
        for address, peer in self.machines.items():
            if peer.deadline is not None and peer.deadline <= self.now:
                peer.tick(self.now)
                self._collect(address, peer)

    def _collect(self, address: str, peer: Peer) -> None:
        sends, peer.sends = peer.sends, []
        for data, port in sends:
            self.send(data, (address, port or 40_000), (SERVER, 6969))
