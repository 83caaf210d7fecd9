"""Boot scripts: what is believed of who asks for one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from bootwire.assets.scripts import Caller
from bootwire.boot_server import BootServer, Datagram, Settings
from bootwire.policy.target import Target
from bootwire.serve.boot_scripts import Script, Scripts
from bootwire.serve.content import Later, Peer
from bootwire.serve.mode import Link, Plain
from bootwire.wire import dhcp4
from bootwire.wire.http import Request
from dhcp_samples import vector

DISCOVER = dhcp4.parse(vector("edk2-x64-discover"))


def heard(server: BootServer, message: dhcp4.Message) -> None:
    server.receive(Datagram(dhcp4.emit(message), ("0.0.0.0", 68), "dhcp", "eth0", "192.0.2.1"), time.monotonic_ns())


@pytest.mark.parametrize(("asker", "believed"), [("192.0.2.57", "7CZ1"), ("198.51.100.9", "")])
def test_what_smbios_tells_is_kept_only_from_the_address_that_dhcp_showed(asker: str, believed: str) -> None:
    server = BootServer(Settings())
    target = Target("", script="#!ipxe\n")
    scripts = Scripts(server, Plain(target), lambda ours: f"http://{ours}", lambda _, base: Link(base, lambda *_: ""))
    heard(server, DISCOVER)
    wanted = ((dhcp4.MESSAGE_TYPE, b"\x03"), (dhcp4.REQUESTED_ADDRESS, dhcp4.packed("192.0.2.57")))
    heard(server, replace(DISCOVER, options=wanted))
    request = Request("GET", "/boot.ipxe", (("serial", "7CZ1"),), {})
    scripts(DISCOVER.mac, request, Caller(), Peer(asker, 49152, "192.0.2.1"))
    heard(server, replace(DISCOVER, xid=77))
    known = server.traits_of(DISCOVER.mac)
    assert known is not None
    assert known.serial == believed


def test_a_script_waits_for_what_it_rests_on() -> None:
    waits = True

    async def kept() -> None:
        nonlocal waits
        waits = False

    scripts = Scripts(
        BootServer(Settings()), Plain(Target("", script="#!ipxe\n")), lambda ours: f"http://{ours}",
        lambda _, base: Link(base, lambda *_: ""),
        lambda machine: Later(kept) if waits and machine == DISCOVER.mac else None,
    )  # fmt: skip
    question = Request("GET", "/boot.ipxe", (), {}), Caller(), Peer("192.0.2.57", 49152, "192.0.2.1")
    assert isinstance(scripts("02:00:00:00:00:01", *question), Script)
    later = scripts(DISCOVER.mac, *question)
    assert isinstance(later, Later)

    async def wait() -> None:
        await later.known()

    asyncio.run(wait())
    assert isinstance(scripts(DISCOVER.mac, *question), Script)
