"""One machine with a firmware persona, a DHCP server and Bootwire, each in a network namespace, on one bridge."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from bootwire.preboot.personas.steps import Machine, Persona
from bootwire.serve.interfaces import interfaces
from bootwire.serve.loop import Loop
from bootwire.serve.personas import Personas, Station
from namespaces import Namespace, plug
from product import Server

MAC = "52:54:00:0b:00:01"
BOOTWIRE, DHCP = "10.9.0.1", "10.9.0.2"
PATIENCE = 90  # seconds for one boot: EDK2 gives up after 60


class FirmwareLan:
    """Interfaces: "lan0" of each server; "m0" of the machine, a macvlan, as each of many machines has one."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.machine, self.bootwire, self.dhcp = Namespace(), Namespace(), Namespace()
        self._started: list[subprocess.Popen[bytes]] = []
        self.machine.run("ip link add bridge type bridge")
        self.machine.run("ip link set bridge up")
        for number, space in enumerate((self.bootwire, self.dhcp), 1):
            plug(self.machine, space, number, "lan0")
        self.machine.run("ip link add w0 type veth peer name w1")
        self.machine.run("ip link set w0 master bridge up")
        self.machine.run("ip link set w1 up")
        self.machine.run(f"ip link add m0 link w1 address {MAC} type macvlan mode private")
        self.machine.run("ip link set m0 up")
        for space in (self.machine, self.bootwire, self.dhcp):
            space.wait_for_carrier()

    def dnsmasq(self, *options: str, space: Namespace | None = None) -> None:
        """A DHCP server for 10.9.0.100 to .200, with more options: of booting or not."""
        where = space or self.dhcp
        number = len(self._started)
        process = where.start(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=lan0", "--user=root",
            "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--log-dhcp",
            f"--dhcp-leasefile={self.state}/leases{number}", f"--pid-file={self.state}/pid{number}",
            f"--log-facility={self.state}/dnsmasq{number}.log", *options,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._started.append(process)

    def serve(self, *arguments: str) -> Server:
        """`bootwire boot ARGUMENTS`, ready."""
        server = Server(self.bootwire, *arguments, "-i", "lan0", "--json", "--no-fetch", "--state-dir", str(self.state))
        server.ready()
        return server

    def boot(self, persona: Persona, machine: Machine) -> Station:
        """Until the machine has ended, or PATIENCE has."""
        return self.machine.call(lambda: _boot(persona, machine))

    def close(self) -> None:
        for process in self._started:
            process.terminate()
            process.wait(10)
        Server.kill(set(Server.running))
        for space in (self.machine, self.bootwire, self.dhcp):
            space.close()


def machine(seed: int = 1, ipxe: str = "2.0.0") -> Machine:
    return Machine(bytes.fromhex(MAC.replace(":", "")), bytes(range(16)), random.Random(seed), ipxe=ipxe)


def _boot(persona: Persona, of: Machine) -> Station:
    loop = Loop()
    link = next(one for one in interfaces() if one.name == "w1")
    personas = Personas(loop, link, lambda _: loop.stop())
    station = None

    def start() -> None:
        nonlocal station
        station = personas.power_on(of, "m0", persona)

    loop.call_soon(start)
    loop.at(loop.now + PATIENCE * 1_000_000_000, lambda _: loop.stop())
    loop.run()
    personas.close()
    loop.close()
    assert station is not None
    return station
