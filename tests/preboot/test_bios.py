"""BIOS PXE ROM persona: the DISCOVER it sends and the code it ends with."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas import bios
from bootwire.preboot.personas.steps import Machine, Started, Stopped
from bootwire.wire import dhcp4
from dhcp_samples import vector
from persona_lan import OURS, DhcpServer, Lan, pe, seconds

PXE, DIRECT = (60, b"PXEClient"), (43, b"\x06\x01\x08\xff")
MENU = b"\x06\x01\x03\x08\x07\x80\x00\x01\xc0\x00\x02\x0a\x09\x05\x80\x00\x02hi\x0a\x02\x00P\xff"
LOCAL = b"\x06\x01\x03\x09\x05\x00\x00\x02hi\x0a\x02\x00P\xff"


def proxy(*options: tuple[int, bytes], file: bytes = b"", boots: bytes | None = None):
    """A ProxyDHCP server; boots: the file that its port 4011 names, None if nothing listens there."""

    def serve(seen):
        asked = seen.message
        if seen.to[1] == 67 and asked.type == dhcp4.DISCOVER:
            yield reply(asked, 2, (PXE, *options), file), ("255.255.255.255", 68), 67
        elif seen.to == (OURS, 4011) and boots is not None:
            item = ((43, asked.option(43)),) if asked.option(43) else ()
            yield reply(asked, 5, (PXE, *item), boots), seen.source, 4011

    def reply(asked, kind, carried, named):
        own = ((53, bytes((kind,))), (54, dhcp4.packed(OURS)))
        return dhcp4.emit(replace(asked, op=2, siaddr=OURS, file=named, flags=0x8000, options=(*own, *carried)))

    return lambda seen: (((OURS, port), to, data) for data, to, port in serve(seen))


def lan(*servers) -> Lan:
    made = Lan(*servers)
    made.tftp = lambda name, peer: {b"nbp": b"\xea" * 9000, b"big": bytes(600_000), b"efi": pe()}.get(name)
    return made


def test_its_discover_is_what_an_old_rom_sends():
    seen = dhcp4.parse(vector("intel-bios-discover"))
    machine = Machine(seen.chaddr[:6], (seen.option(97) or b"")[1:], random.Random(1))
    carried = bios.options(machine, bios.Build(old=True), dhcp.Ask(dhcp4.DISCOVER, 0, 0))
    assert carried == seen.options


@pytest.mark.parametrize(
    ("servers", "code"),
    [
        ((), "PXE-E51"),
        ((proxy(DIRECT, file=b"nbp"),), "PXE-E52"),
        ((DhcpServer(),), "PXE-E53"),
        ((DhcpServer(PXE),), "PXE-E55"),
        ((DhcpServer(), proxy()), "PXE-E55"),
        ((DhcpServer(), proxy(file=b"nbp")), "PXE-E55"),
        ((DhcpServer(), proxy((43, b"\x06\x01\x00\xff"), file=b"nbp")), "PXE-E74"),
        ((DhcpServer(), proxy((43, MENU), file=b"nbp")), "PXE-E78"),
        ((DhcpServer(), proxy((43, LOCAL), file=b"nbp")), "PXE-M0F"),
        ((DhcpServer(), proxy(DIRECT, file=b"missing")), "PXE-E3B"),
        ((DhcpServer(), proxy(DIRECT, file=b"big")), "PXE-E79"),
        ((DhcpServer(file=b"nbp"),), "PXE-E7B"),
        ((DhcpServer(nak=True), proxy(DIRECT, file=b"nbp")), "PXE-E51"),
    ],
)
def test_the_error_on_the_screen(servers, code):
    outcome = lan(*servers).boot(bios.boot).outcome
    assert isinstance(outcome, Stopped)
    assert outcome.code == code


@pytest.mark.parametrize(
    "servers",
    [
        (DhcpServer(), proxy(DIRECT, file=b"nbp")),
        (DhcpServer(), proxy(boots=b"nbp")),
        (DhcpServer(), proxy((43, MENU), file=b"x", boots=b"nbp")),
        (DhcpServer(PXE, DIRECT, siaddr=OURS, file=b"nbp"),),
        (DhcpServer(siaddr=OURS, file=b"nbp"),),
    ],
)
def test_the_ways_to_a_program(servers):
    outcome = lan(*servers).boot(bios.boot).outcome
    assert isinstance(outcome, Started), outcome
    assert outcome.program.name == "nbp"


def test_without_a_proxy_it_waits_for_one_before_it_takes_the_dhcp_servers_file():
    made = lan(DhcpServer(siaddr=OURS, file=b"nbp"))
    made.boot(bios.boot)
    assert seconds(made.sent()) == [0, 4, 12]


def test_an_efi_program_hangs_a_bios():
    outcome = lan(DhcpServer(), proxy(DIRECT, file=b"efi")).boot(bios.boot).outcome
    assert isinstance(outcome, Stopped)
    assert "EFI program" in outcome.text
