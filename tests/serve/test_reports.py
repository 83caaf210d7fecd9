"""Reports of bare machines over real sockets, and the ports for people who write programs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

import nasties
from bootwire.facts import Fact, Listening, ProgramSaid, Refused, ReportReceived
from bootwire.policy import inventory
from bootwire.serve.echo import Echo
from bootwire.serve.reports import ReportReceiver
from bootwire.wire import report
from bootwire.wire.report import Acknowledgement, Item, Report, emit, parse

MAC = "52:54:00:77:00:01"
DISK = report.Disk(0x80, 0, 512, 2048, 0, 0, 0, b"ATA")


def about(mac: str, *items: Item, nonce: int = 1) -> bytes:
    return emit(Report(nonce, report.BIOS, 0, (report.Mac(bytes.fromhex(mac.replace(":", ""))), *items)))


def talk(port: int, *datagrams: bytes, answers: bool = True) -> list[bytes]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        got = []
        for datagram in datagrams:
            sock.send(datagram)
            got += [sock.recv(4096)] if answers else []
        return got


def reported(
    *datagrams: bytes, machine_at: Callable[[str], str] = lambda _: "", strangers: int = 9
) -> tuple[list[Fact], ReportReceiver]:
    async def run() -> tuple[list[Fact], ReportReceiver]:
        told: list[Fact] = []
        receiver = ReportReceiver(told.append, machine_at, strangers=strangers)
        receiver.open(asyncio.get_running_loop(), ["127.0.0.1"], port=0)
        await asyncio.to_thread(talk, receiver.ports[0], *datagrams)
        receiver.close()
        return told, receiver

    return asyncio.run(run())


def test_a_report_becomes_a_record_and_a_fact():
    told, receiver = reported(about(MAC, report.Program(b"hello 1"), DISK))
    assert isinstance(told[0], Listening)
    (fact,) = [fact for fact in told if isinstance(fact, ReportReceived)]
    assert (fact.machine, fact.address, fact.program, fact.because) == (MAC, "127.0.0.1", "hello 1", "its first report")
    record = receiver.machine(MAC)
    assert record is not None
    assert record.hardware == inventory.from_text(fact.record)


def test_what_changed_since_the_last_report_is_told():
    bigger = report.Disk(0x80, 0, 512, 4096, 0, 0, 0, b"ATA")
    told, _ = reported(about(MAC, DISK), about(MAC, bigger, nonce=2), about(MAC, bigger, nonce=3))
    found = [fact for fact in told if isinstance(fact, ReportReceived)]
    assert [fact.because for fact in found] == ["its first report", "something changed", "as before"]
    assert found[1].changes == "disk 0x80: 2 MiB ATA, was 1 MiB ATA"


def test_a_report_in_the_name_of_another_machine_is_refused():
    told, receiver = reported(about(MAC, DISK), machine_at=lambda _: "52:54:00:00:00:09")
    assert [type(fact) for fact in told] == [Listening, Refused]
    assert receiver.machine(MAC) is None


def test_a_record_with_very_many_partitions_is_whole_in_the_inventory_and_short_in_the_fact():
    many = [report.Partition(0x80, i + 1, 0, i, 1, bytes(16), bytes(16), b"a\0" * 36) for i in range(150)]
    items = [report.Mac(bytes.fromhex(MAC.replace(":", ""))), DISK, *many]
    parts = [emit(Report(7, report.BIOS, 0, tuple(items[i * 10 : i * 10 + 10]), i, 16)) for i in range(16)]
    told, receiver = reported(*parts)
    (fact,) = [fact for fact in told if isinstance(fact, ReportReceived)]
    assert len(fact.record) < 4_000
    record = receiver.machine(MAC)
    assert record is not None
    assert len(record.hardware.disks[0].partitions) == 150


def test_a_note_is_told_and_makes_no_record():
    told, receiver = reported(about(MAC, report.Note(b"ask: no answer, falling back")))
    assert told[1:] == [ProgramSaid(MAC, "127.0.0.1", "note", "ask: no answer, falling back")]
    assert receiver.machine(MAC) is None


def test_an_acknowledgement_comes_back_from_where_it_was_sent():
    async def run() -> list[bytes]:
        receiver = ReportReceiver(lambda _: None, lambda _: "")
        receiver.open(asyncio.get_running_loop(), ["127.0.0.1"], port=0)
        try:
            return await asyncio.to_thread(talk, receiver.ports[0], about(MAC, nonce=77))
        finally:
            receiver.close()

    assert [parse(octets) for octets in asyncio.run(run())] == [Acknowledgement(77, report.BIOS)]


def test_ten_thousand_hostile_datagrams_and_a_good_report_after_them():
    """From a hundred addresses, since one alone is answered 32 times a second."""
    items = nasties.reports(5, 10_000)

    async def run() -> tuple[list[Fact], ReportReceiver]:
        told: list[Fact] = []
        receiver = ReportReceiver(told.append, lambda _: "")
        receiver.open(asyncio.get_running_loop(), ["127.0.0.1"], port=0)
        for number in range(0, len(items), 100):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((f"127.9.0.{number // 100 + 1}", 0))
                for item in items[number : number + 100]:
                    sock.sendto(item, ("127.0.0.1", receiver.ports[0]))
            await asyncio.sleep(0)  # the receiver takes what has come
        await asyncio.to_thread(talk, receiver.ports[0], about(MAC, report.Program(b"hello 1"), DISK))
        receiver.close()
        return told, receiver

    told, receiver = asyncio.run(run())
    record = receiver.machine(MAC)
    assert record is not None
    assert record.hardware.program == "hello 1"
    assert len([fact for fact in told if isinstance(fact, Refused)]) < 200


def test_machines_that_nobody_heard_boot_are_kept_up_to_a_number():
    told, receiver = reported(*(about(f"52:54:00:00:00:0{i}", DISK, nonce=i) for i in range(4)), strangers=2)
    assert [receiver.machine(f"52:54:00:00:00:0{i}") is not None for i in range(4)] == [True, True, False, False]
    assert "such machines have reported already" in next(fact.because for fact in told if isinstance(fact, Refused))


@pytest.mark.parametrize(("service", "answers"), [("echo", True), ("log", False)])
def test_what_a_program_sends_is_shown_and_the_echo_comes_back(service: str, answers: bool):
    async def run() -> tuple[list[bytes], list[Fact]]:
        told: list[Fact] = []
        arrived = asyncio.Event()

        def record(fact: Fact) -> None:
            told.append(fact)
            if isinstance(fact, ProgramSaid):
                arrived.set()

        echo = Echo(asyncio.get_running_loop(), ["127.0.0.1"], record, lambda _: MAC, 0, 0)
        port = getattr(echo, service).ports[0]
        got = await asyncio.to_thread(talk, port, b"I am here\x1b[2J\n", answers=answers)
        await asyncio.wait_for(arrived.wait(), 10)
        echo.close()
        return got, told

    got, told = asyncio.run(run())
    assert got == ([b"I am here\x1b[2J\n"] if answers else [])
    assert told[-1] == ProgramSaid(MAC, "127.0.0.1", service, "I am here\\x1b[2J")
