"""A firmware persona on a network card of our own: from power-on to the files of the kernel that it would start."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from bootwire.engine import S, http_client, tftp
from bootwire.engine.ip import UdpPort
from bootwire.preboot.fetch import Fetcher, FetchError
from bootwire.preboot.personas import bios, edk2, ipxe, raspberry, steps, transfers, u_boot, uefi_http
from bootwire.preboot.personas.steps import Answer, Fetched, Machine, NotFetched, Outcome, Persona
from bootwire.preboot.stack import Stack, packed, text
from bootwire.preboot.transport import StackTransport
from bootwire.wire import dhcp4

FIRMWARE: dict[str, Callable[[Machine], Persona]] = {
    "bios": bios.boot,
    "uefi": edk2.boot,
    "uefi-http": uefi_http.boot,
    "ipxe": ipxe.rom,
    "u-boot": u_boot.boot,
    "raspberry-4": raspberry.boot,
    "raspberry-3": lambda machine: raspberry.boot(machine, raspberry.Build(3)),
}
_LARGEST = 4 << 30  # octets of all files together
_PORTS = (dhcp4.CLIENT_PORT, dhcp4.PXE_PORT)
_READ = 65_535  # octets: the longest datagram


@dataclass
class Player:
    """Does what a persona asks, over `stack`, which must have no address and no DHCP of its own.

    say    takes a line of the machine's screen
    files  every file that was fetched whole, by its SHA-256
    sources  (URL, SHA-256) of those that are there, in the order that they came
    asked    URLs asked for over HTTP, whatever came
    """

    stack: Stack
    say: Callable[[str], object]
    files: dict[str, bytes] = field(default_factory=dict)
    sources: list[tuple[str, str]] = field(default_factory=list)
    asked: dict[str, None] = field(default_factory=dict)

    def run(self, firmware: str) -> Outcome:
        """Power on. firmware: one of FIRMWARE. OSError where the card is not usable any more."""
        machine = Machine(self.stack.nic.mac, rng=random.SystemRandom())
        with self.stack.acting() as now:
            machine.now = now
            ports = {number: self.stack.host.bind_udp(number) for number in _PORTS}
        with Fetcher(StackTransport(self.stack)) as fetcher:
            try:
                return self._play(FIRMWARE[firmware](machine), machine, ports, fetcher)
            finally:
                with self.stack.acting():
                    for port in ports.values():
                        self.stack.host.close_udp(port)

    def _play(self, persona: Persona, machine: Machine, ports: dict[int, UdpPort], fetcher: Fetcher) -> Outcome:
        answer: Answer = None
        first = True
        while True:
            with self.stack.acting() as now:
                machine.now = now
            try:
                request = next(persona) if first else persona.send(answer)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            first, answer = False, None
            match request:
                case steps.Show(line):
                    self.say(line)
                case steps.Configure():
                    fetcher.close()
                    self._configure(request)
                case steps.SendUdp(source, port, to, to_port, data):
                    with self.stack.acting() as now:
                        # what cannot be sent is lost, as on a wire
                        self.stack.host.send_udp(data, packed(to), to_port, port, now, packed(source))
                case steps.Await():
                    answer = self._await(request, ports)
                case steps.TftpGet():
                    answer = self.fetch_tftp(request)
                case steps.HttpGet():
                    answer = self._http(request, machine, fetcher)

    def _await(self, wanted: steps.Await, ports: dict[int, UdpPort]) -> steps.Datagram | None:
        found: list[steps.Datagram] = []

        def come() -> bool:
            for number, port in ports.items():
                while (one := port.take()) is not None:
                    if number in wanted.ports:
                        found.append(steps.Datagram(one[0], text(one[1]), one[2], number))
                        return True
            return False

        with self.stack.acting() as now:
            patience = max(0, wanted.until - now) / S
        self.stack.wait(come, patience)
        return found[0] if found else None

    def _configure(self, wanted: steps.Configure) -> None:
        with self.stack.acting() as now:
            host = self.stack.host
            for address, _ in list(host.addresses):
                host.remove_address(address)
            host.routes.delete(bytes(4), 0)
            if wanted.address != "0.0.0.0":
                mask = int.from_bytes(packed(wanted.mask or "255.255.255.0"), "big")
                host.add_address(packed(wanted.address), mask.bit_count(), now)
                if wanted.router:
                    host.routes.add(bytes(4), 0, packed(wanted.router))

    def fetch_tftp(self, wanted: steps.TftpGet) -> Fetched | NotFetched:
        """One file over TFTP, from the address that the stack has now."""
        receiver, body, repeats = tftp.Receiver(transfers.tftp_wanted(wanted)), bytearray(), 0
        with self.stack.acting() as now:
            packets = receiver.start(now)
        datagrams = StackTransport(self.stack).datagrams(wanted.server, wanted.port)
        try:
            while True:
                for packet in packets:
                    to = packet.to if isinstance(packet.to, tuple) else (wanted.server, transfers.TFTP_PORT)
                    datagrams.sendto(packet.data, to)
                for payload in receiver.take():
                    body += payload
                if receiver.outcome is not None:
                    break
                with self.stack.acting() as now:
                    due = now if receiver.deadline is None else receiver.deadline
                datagrams.settimeout(max(due - now, 1) / S)
                try:
                    data, source = datagrams.recvfrom(_READ)
                except (TimeoutError, BlockingIOError):
                    with self.stack.acting() as now:
                        packets = receiver.tick(now)
                    repeats += len(packets)
                    continue
                with self.stack.acting() as now:
                    packets = receiver.receive(data, source[:2], now)
                if wanted.probe is not None and data[:2] == b"\0\6":
                    error, answer = transfers.hang_up(receiver, wanted.probe, repeats)
                    datagrams.sendto(error, source)
                    return answer
        except OSError as error:
            return NotFetched("unreachable", text=error.strerror or str(error), repeats=repeats)
        finally:
            datagrams.close()
        if not isinstance(receiver.outcome, tftp.Received):
            return transfers.tftp_failed(receiver.outcome, repeats)
        return (
            Fetched(-1, repeats=repeats)
            if wanted.probe is not None
            else self._keep(_tftp_url(wanted), body, repeats=repeats)
        )

    def _http(self, wanted: steps.HttpGet, machine: Machine, fetcher: Fetcher) -> Fetched | NotFetched:
        body = bytearray()
        self.asked[wanted.url] = None
        request = http_client.Wanted(
            wanted.url, wanted.method, wanted.headers, limit=min(wanted.limit, self._room), idle=wanted.idle,
            redirects=wanted.redirects,
        )  # fmt: skip
        try:
            response = fetcher.ask(request, body.extend)
        except FetchError as error:
            return transfers.http_failed(error.why, error.detail)
        return self._keep(wanted.url, body, response.status, tuple(response.headers.items()))

    @property
    def _room(self) -> int:
        return _LARGEST - sum(map(len, self.files.values()))

    def _keep(
        self, url: str, body: bytearray, status: int = 200, headers: tuple[tuple[str, str], ...] = (), repeats: int = 0
    ) -> Fetched:
        data = bytes(body)
        fetched = steps.whole(data, status, headers, repeats)
        self.files[fetched.sha256] = data
        if data and status == 200:
            self.sources.append((url, fetched.sha256))
        return fetched


def _tftp_url(wanted: steps.TftpGet) -> str:
    name = quote(wanted.name, safe="/:\\")
    return f"tftp://{wanted.server}/{name}"
