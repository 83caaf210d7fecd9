"""bootinfo over real sockets, on loopback: each test has two addresses of its own there."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bootwire import facts
from bootwire.engine import bootinfo as engine
from bootwire.engine.bootinfo import Answer, Asker, NoAnswer, OrderOver, Server
from bootwire.serve.bootinfo import FLOOD, BootinfoEdge
from bootwire.serve.dhcp import PortInUse
from bootwire.serve.interfaces import Address, Interface
from bootwire.wire import bootinfo as wire
from bootwire.wire.bootinfo import Boot, Partition, Wait
from bootwire.wire.bootinfo_text import read
from nasties import bootinfo_packets

MAC = "52:54:00:12:34:56"
REQUEST = wire.emit(wire.Request())
_PLACES = itertools.count(1)


class Fixed:
    """Says the same to everybody; with `slow`, only after the loop had a turn."""

    def __init__(self, answer: Answer | NoAnswer, slow: bool = False) -> None:
        self.answer, self.slow = answer, slow
        self.asked = 0
        self._told = False

    def known(self, asker: Asker, ours: str) -> Answer | NoAnswer | None:
        return None if self.slow and not self._told else self.answer

    async def ask(self, asker: Asker, ours: str) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        self._told = True


class Machine:
    """An address with bootinfo's client port bound."""

    def __init__(self, address: str, server: str, port: int = wire.CLIENT_PORT) -> None:
        self.address, self.server = address, server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((address, port))

    def send(self, data: bytes = REQUEST) -> None:
        self.socket.sendto(data, (self.server, wire.SERVER_PORT))

    async def hear(self) -> tuple[wire.Message, int]:
        async with asyncio.timeout(10):
            data, (address, port) = await asyncio.get_running_loop().sock_recvfrom(self.socket, 4096)
        assert address == self.server
        return wire.parse(data), port


class Rig:
    def __init__(self, decisions: Fixed) -> None:
        place = f"127.{os.getpid() % 250 + 1}.{next(_PLACES) % 250 + 1}"
        self.address, self.client = f"{place}.1", f"{place}.2"
        self.told: list[facts.Fact] = []
        self._news = asyncio.Event()
        lo = Interface("lo", 1, "", 65536, True, True, True, (Address(self.address, 24),))
        self.edge = BootinfoEdge(Server(), [lo], decisions, self._machine_at, self._record)
        self.machines: list[Machine] = []

    def machine(self, address: str = "", port: int = wire.CLIENT_PORT) -> Machine:
        made = Machine(address or self.client, self.address, port)
        self.machines.append(made)
        return made

    async def until(self, kind: type[facts.Fact], because: str = "") -> facts.Fact:
        """The first fact of this kind whose reason holds these words."""
        async with asyncio.timeout(10):
            while True:
                for fact in self.told:
                    if isinstance(fact, kind) and because in getattr(fact, "because", ""):
                        return fact
                self._news.clear()
                await self._news.wait()

    def _machine_at(self, address: str) -> str:
        return MAC if address == self.client else ""

    def _record(self, fact: facts.Fact) -> None:
        self.told.append(fact)
        self._news.set()


@asynccontextmanager
async def serving(answer: str | Answer | NoAnswer, slow: bool = False) -> AsyncIterator[Rig]:
    decided = Answer(read(answer), "the test says so") if isinstance(answer, str) else answer
    rig = Rig(Fixed(decided, slow))
    rig.edge.open(asyncio.get_running_loop())
    try:
        yield rig
    finally:
        rig.edge.close()
        for machine in rig.machines:
            machine.socket.close()


def test_a_machine_is_answered_from_6969_and_both_are_told() -> None:
    async def go() -> None:
        async with serving("partition 2") as rig:
            machine = rig.machine()
            machine.send()
            assert await machine.hear() == (wire.Reply(Boot(Partition(2))), 6969)
            assert rig.told == [
                facts.Listening("", "bootinfo", rig.address, 6969),
                facts.BootinfoAsked(MAC, rig.client, "plain", 1, False),
                facts.BootinfoAnswered(MAC, rig.client, "partition 2", "the test says so", False),
            ]

    asyncio.run(go())


def test_a_question_from_any_port_is_answered_to_9696() -> None:
    async def go() -> None:
        async with serving("partition 2") as rig:
            machine, asking = rig.machine(), rig.machine(port=0)
            asking.send()
            assert (await machine.hear())[1] == 6969

    asyncio.run(go())


def test_a_decision_may_take_its_time() -> None:
    async def go() -> None:
        async with serving("partition 2", slow=True) as rig:
            machine = rig.machine()
            machine.send()
            machine.send()
            assert await machine.hear() == (wire.Reply(Boot(Partition(2))), 6969)

    asyncio.run(go())


def test_a_machine_of_another_server_hears_nothing_and_that_is_told() -> None:
    async def go() -> None:
        async with serving(NoAnswer("not in the fleet")) as rig:
            rig.machine().send()
            silent = await rig.until(facts.Silent)
            assert silent == facts.Silent(MAC, "bootinfo", "not in the fleet", rig.client)

    asyncio.run(go())


def test_an_order_reaches_a_waiting_machine_from_6970_and_its_acknowledgement_ends_it() -> None:
    async def go() -> None:
        async with serving("wait") as rig:
            machine = rig.machine()
            machine.send()
            assert (await machine.hear())[0] == wire.Reply(Boot(Wait()))
            ordering = asyncio.create_task(rig.edge.order(MAC, read("reboot")))
            assert await machine.hear() == (wire.Order(read("reboot")), 6970)
            machine.send(wire.emit(wire.Ack()))
            assert await ordering == OrderOver(rig.client, MAC, read("reboot"), True, "it says so")
            assert rig.told[-2:] == [
                facts.OrderSent(MAC, rig.client, "reboot", 1),
                facts.OrderEnded(MAC, rig.client, "reboot", True, "it says so"),
            ]

    asyncio.run(go())


def test_a_discover_is_taken_for_a_reboot() -> None:
    async def go() -> None:
        async with serving("wait") as rig:
            machine = rig.machine()
            machine.send()
            await machine.hear()
            ordering = asyncio.create_task(rig.edge.order(MAC, read("reboot")))
            await machine.hear()
            rig.edge.seen_starting(MAC)
            over = await ordering
            assert isinstance(over, OrderOver)
            assert over.how == "it starts over"

    asyncio.run(go())


def test_a_newer_order_ends_the_wait_for_the_older_one() -> None:
    async def go() -> None:
        async with serving("wait") as rig:
            machine = rig.machine()
            machine.send()
            await machine.hear()
            first = asyncio.create_task(rig.edge.order(MAC, read("reboot")))
            await machine.hear()
            second = asyncio.create_task(rig.edge.order(MAC, read("auto")))
            assert "newer order" in str(await first)
            machine.send()
            over = await second
            assert isinstance(over, OrderOver)
            assert over.how == "it asks again"

    asyncio.run(go())


def test_a_taken_port_is_told_with_its_owner() -> None:
    async def go() -> None:
        async with serving("wait") as rig:
            other = BootinfoEdge(Server(), rig.edge._interfaces, Fixed(NoAnswer("")), lambda at: "", rig.told.append)
            with pytest.raises(PortInUse, match="UDP port 6969 is taken by"):
                other.open(asyncio.get_running_loop())

    asyncio.run(go())


def test_ten_thousand_hostile_datagrams_leave_it_answering() -> None:
    """From as many addresses as it takes to have them all read: one address has its rate."""

    async def go() -> None:
        async with serving("partition 2") as rig:
            packets = iter(bootinfo_packets(1, 10_000))
            block = rig.client.rsplit(".", 2)[0]
            places = (f"{block}.{high}.{low}" for high in range(251, 255) for low in range(1, 250))
            while some := list(itertools.islice(packets, engine.BURST - 1)):
                hostile = Machine(next(places), rig.address, 0)
                for packet in some:
                    hostile.send(packet)
                hostile.socket.close()
                await asyncio.sleep(0)  # its turn to read: what a full queue loses tests nothing
            machine = rig.machine()
            machine.send()
            assert await machine.hear() == (wire.Reply(Boot(Partition(2))), 6969)
            assert sum(isinstance(fact, facts.BootinfoAsked) for fact in rig.told) > 100
            assert any(isinstance(fact, facts.Refused) for fact in rig.told)

    asyncio.run(go())


def flood(rig: Rig, source: str, stop: Callable[[], bool]) -> int:
    """Send as fast as a thread can."""
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind((source, 0))
        while not stop():
            for _ in range(100):
                out.sendto(REQUEST, (rig.address, wire.SERVER_PORT))
            sent += 100
    return sent


def test_a_flood_from_one_address_does_not_starve_others() -> None:
    async def go() -> None:
        async with serving("partition 2") as rig:
            over = False
            flooding = asyncio.create_task(
                asyncio.to_thread(flood, rig, f"{rig.client.rpartition('.')[0]}.66", lambda: over)
            )
            try:
                await rig.until(facts.Refused, "kept away")
                for number in range(3, 50):  # machines of other addresses, each asks once
                    machine = rig.machine(f"{rig.client.rpartition('.')[0]}.{number}")
                    machine.send()
                    assert (await machine.hear())[0] == wire.Reply(Boot(Partition(2)))
            finally:
                over = True
                sent = await flooding
            assert sent > FLOOD

    asyncio.run(go())
