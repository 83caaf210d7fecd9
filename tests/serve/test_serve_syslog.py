"""The machines' consoles, received by syslog."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from bootwire.facts import ConsoleSaid, Fact, Listening, Warned
from bootwire.serve.syslog import BURST, RATE, SyslogReceiver

MAC = "52:54:00:12:34:56"


def received(send: Callable[[socket.socket, int], None], until: Callable[[list[Fact]], bool]) -> list[Fact]:
    """The facts that a receiver on 127.0.0.1 makes of what `send` sends, from 127.0.0.1, until they suffice."""
    facts: list[Fact] = []
    enough = asyncio.Event()

    def record(fact: Fact) -> None:
        facts.append(fact)
        if until(facts):
            enough.set()

    async def run() -> None:
        control = asyncio.get_running_loop()
        receiver = SyslogReceiver(control, ["127.0.0.1"], record, {"127.0.0.1": MAC}.__getitem__, port=0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            send(sender, receiver.ports[0])
            async with asyncio.timeout(10):
                await enough.wait()
        receiver.close()

    asyncio.run(run())
    return facts


def said(facts: list[Fact]) -> list[str]:
    return [fact.text for fact in facts if isinstance(fact, ConsoleSaid)]


def test_a_line_becomes_a_fact_of_the_machine_at_that_address() -> None:
    def send(sender: socket.socket, port: int) -> None:
        sender.sendto(b"<6>ipxe: http://10.0.0.1/kernel... ok", ("127.0.0.1", port))

    listening, line = received(send, lambda facts: len(facts) == 2)
    assert isinstance(listening, Listening)
    assert line == ConsoleSaid(MAC, "127.0.0.1", "http://10.0.0.1/kernel... ok")


def test_hostile_lines_are_escaped_and_empty_ones_left_out() -> None:
    def send(sender: socket.socket, port: int) -> None:
        for data in (b"<6>ipxe: ", b"", b"\0\0", b"<6>ipxe: \x1b[2J\nOct 11 fake: line", b"x" * 5_000, b"<6>ipxe: end"):
            sender.sendto(data, ("127.0.0.1", port))

    lines = said(received(send, lambda facts: said(facts)[-1:] == ["end"]))
    assert lines == [r"\x1b[2J\x0aOct 11 fake: line", "x" * 255 + "…", "end"]


def test_a_chatterbox_is_limited_and_told_so() -> None:
    lines = [b"<6>ipxe: line %d" % number for number in range(BURST + 200)]

    def send(sender: socket.socket, port: int) -> None:
        control = asyncio.get_running_loop()
        for line in lines[:50]:  # a few at a time: the kernel's queue is not what is tested here
            sender.sendto(line, ("127.0.0.1", port))
        del lines[:50]
        if lines:
            control.call_soon(send, sender, port)
        else:  # once the allowance has grown by one, the next line tells what was left out
            control.call_later(2 / RATE, sender.sendto, b"<6>ipxe: afterwards", ("127.0.0.1", port))

    told = said(received(send, lambda facts: said(facts)[-1:] == ["afterwards"]))
    assert told[:BURST] == [f"line {number}" for number in range(BURST)]
    left_out = sum(int(line[1:].split()[0]) for line in told if line.startswith("("))
    kept = sum(line.startswith("line ") for line in told)
    assert left_out + kept == BURST + 200
    assert left_out > 0


def test_a_taken_port_is_a_warning_and_not_the_end() -> None:
    facts: list[Fact] = []

    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
            owner.bind(("127.0.0.1", 0))
            port = owner.getsockname()[1]
            SyslogReceiver(asyncio.get_running_loop(), ["127.0.0.1"], facts.append, str, port).close()

    asyncio.run(run())
    (warning,) = facts
    assert isinstance(warning, Warned)
    assert "is taken by" in warning.what
    assert warning.fix.startswith("sudo")
