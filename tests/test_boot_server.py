"""BootServer: where replies go, what counts as a copy or a retry, what is told and what is remembered."""

from __future__ import annotations

from dataclasses import replace

from bootwire.boot_server import BootServer, Datagram, Effect, Send, Settings
from bootwire.engine import MS, Ns, S
from bootwire.facts import Discovered, Fact, Offered, PxeAnswered, PxeRequested
from bootwire.policy.decide import LOADERS, Offerings
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from dhcp_samples import vector

OURS = "192.0.2.10"
MAC = "52:54:00:12:34:56"
ALL = Offerings(loaders=frozenset(name for names in LOADERS.values() for name in names))


def server(**settings) -> BootServer:
    return BootServer(Settings(**{"offerings": ALL, **settings}))


def datagram(what: str | Message | bytes, source=("0.0.0.0", 68), service="dhcp", ours=OURS) -> Datagram:
    data = vector(what) if isinstance(what, str) else dhcp4.emit(what) if isinstance(what, Message) else what
    return Datagram(data, source, service, "eth0", ours)


def sent(effects: list[Effect]) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send)]


def only_send(effects: list[Effect]) -> tuple[Send, Message]:
    (send,) = sent(effects)
    return send, dhcp4.parse(send.data)


def facts(effects: list[Effect], kind: type[Fact]) -> list[Fact]:
    return [effect for effect in effects if isinstance(effect, kind)]


def discover(name: str = "edk2-x64-discover", **fields: object) -> Message:
    return replace(dhcp4.parse(vector(name)), **fields)


# --- port 67 ----------------------------------------------------------------------------------------------------


def test_an_offer_is_broadcast_from_port_67_of_the_receiving_interface():
    send, message = only_send(server().receive(datagram("edk2-x64-discover"), S))
    assert (send.to, send.from_port, send.ours, send.interface) == (("255.255.255.255", 68), 67, OURS, "eth0")
    assert message.flags & dhcp4.BROADCAST


def test_a_relayed_discover_is_answered_at_the_relays_port_67():
    send, message = only_send(server().receive(datagram("edk2-x64-relayed-discover", ("198.51.100.1", 67)), S))
    assert send.to == ("198.51.100.1", 67)
    assert message.options[-1] == (82, dhcp4.parse(vector("edk2-x64-relayed-discover")).option(82))


def test_the_facts_of_an_offer():
    effects = server().receive(datagram("edk2-x64-discover"), S)
    (discovered,) = facts(effects, Discovered)
    (offered,) = facts(effects, Offered)
    assert (discovered.machine, discovered.client, discovered.arch, discovered.retry) == (MAC, "UEFI x64", 7, 0)
    assert (offered.recipe, offered.boot_file) == ("binl", "52-54-00-12-34-56/x86_64/snponly.efi")


# --- port 4011 --------------------------------------------------------------------------------------------------


def test_a_boot_server_request_is_answered_where_it_came_from():
    effects = server().receive(datagram("edk2-x64-binl-request", ("192.0.2.100", 4011), "pxe"), S)
    send, message = only_send(effects)
    assert (send.to, send.from_port) == (("192.0.2.100", 4011), 4011)
    assert (message.type, message.yiaddr, message.siaddr) == (dhcp4.ACK, "0.0.0.0", OURS)
    assert facts(effects, PxeRequested)
    assert facts(effects, PxeAnswered)


# --- copies and retries -----------------------------------------------------------------------------------------


def recipe_at(boots: BootServer, what: Message, now: Ns) -> str:
    return facts(boots.receive(datagram(what), now), Offered)[0].recipe


def test_a_copy_within_half_a_second_is_answered_once():
    boots = server()
    assert sent(boots.receive(datagram("edk2-x64-discover"), S))
    assert boots.receive(datagram("edk2-x64-discover"), S + 100 * MS) == []


def test_a_retry_gets_the_next_shape():
    boots = server()
    recipes = [recipe_at(boots, discover(secs=secs), (1 + secs) * S) for secs in (0, 4, 12, 28)]
    assert recipes == ["binl", "direct", "menu", "menu"]
