"""Our own DHCP client on our own host, against a small server on the simulated LAN."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootwire.engine import MS, S
from bootwire.engine import dhcp_client as engine
from bootwire.engine.ip import Host
from bootwire.preboot.dhcp import Dhcp, Stage, _prefix, classless_routes
from bootwire.preboot.impair import Faults
from bootwire.sim.lan import Lan
from bootwire.wire import dhcp4, ip
from bootwire.wire.dhcp4 import Message

SERVER, OURS = "10.0.0.1", "10.0.0.50"
MASK, ROUTER = (1, b"\xff\xff\xff\0"), (3, dhcp4.packed("10.0.0.254"))


class Server:
    """Answers DISCOVER and REQUEST with `options`; `says` may change or swallow an answer."""

    def __init__(self, lan: Lan, *options: tuple[int, bytes], seconds: int = 3600, says=lambda m: m) -> None:
        self.lan = lan
        self.host = lan.attach(Host(b"\2\0\0\0\0\1", b"server secret...."))
        self.host.add_address(dhcp4.packed(SERVER), 24, 0)
        self.port = self.host.bind_udp(67)
        self.proxy_port = self.host.bind_udp(4011)
        self.options, self.seconds, self.says = options, seconds, says
        self.seen: list[Message] = []

    deadline = None

    def turn(self, now: int) -> None:
        for port in (self.port, self.proxy_port):
            while (found := port.take()) is not None:
                asked = dhcp4.parse(found[0])
                self.seen.append(asked)
                kind = {dhcp4.DISCOVER: dhcp4.OFFER, dhcp4.REQUEST_LEASE: dhcp4.ACK}.get(asked.type)
                if kind is None:
                    continue
                answer = replace(
                    asked, op=2, yiaddr=OURS, siaddr="0.0.0.0",
                    options=(
                        (53, bytes((kind,))), (54, dhcp4.packed(SERVER)), (51, self.seconds.to_bytes(4, "big")),
                        *self.options,
                    ),
                )  # fmt: skip
                said = self.says(answer)
                if said is not None:
                    to = ip.BROADCAST_V4 if asked.ciaddr == "0.0.0.0" else found[1]
                    self.host.send_udp(dhcp4.emit(said), to, 68, port.port, self.lan.now)

    def until(self, client: Dhcp, condition, limit: int = 100 * S) -> None:
        assert self.lan.until(condition, limit), (client.stage, client.because, self.lan.now)


def rig(*options, faults: Faults | None = None, client: dict | None = None, **server) -> tuple[Server, Dhcp, Host]:
    lan = Lan(faults or Faults(delay=MS), seed=2)
    made = Server(lan, *options, **server)
    host = lan.attach(Host(b"\2\0\0\0\0\x99", b"client secret...."))
    agent = Dhcp(host, **(client or {}))
    agent.start(0)
    lan.agents += [made, agent]
    return made, agent, host


def test_an_address_its_routes_and_servers_are_taken():
    server, client, host = rig(MASK, ROUTER, (6, dhcp4.packed("10.0.0.2")), (15, b"lan.example\0"), (26, b"\x05\x14"))
    server.until(client, lambda: client.stage is Stage.DONE)
    assert host.addresses == [(dhcp4.packed(OURS), 24)]
    assert host.routes.find(dhcp4.packed("192.0.2.1")).gateway == dhcp4.packed("10.0.0.254")
    assert host.mtu == 1300
    network = client.network
    assert (network.dns, network.domain, network.server) == (("10.0.0.2",), "lan.example", SERVER)
    assert [m.type for m in server.seen] == [dhcp4.DISCOVER, dhcp4.REQUEST_LEASE]
    assert server.seen[1].option(50) == dhcp4.packed(OURS)
    assert server.seen[1].option(54) == dhcp4.packed(SERVER)


def test_lost_messages_are_said_again():
    server, client, _ = rig(MASK, faults=Faults(loss=0.3, delay=MS))
    server.until(client, lambda: client.stage is Stage.DONE)


def test_nobody_answers():
    server, client, _ = rig(says=lambda m: None)
    server.until(client, lambda: client.stage is Stage.FAILED)
    assert client.because == "no DHCP server answered"
    assert 14 * S < server.lan.now < 20 * S


def test_an_address_that_somebody_has_is_declined():
    server, client, host = rig(MASK)
    other = server.lan.attach(Host(b"\2\0\0\0\0\x77", b"other secret....."))
    other.add_address(dhcp4.packed(OURS), 24, 0)
    server.until(client, lambda: any(m.type == dhcp4.DECLINE for m in server.seen))
    decline = next(m for m in server.seen if m.type == dhcp4.DECLINE)
    assert decline.option(50) == dhcp4.packed(OURS)
    assert host.addresses == []
    assert client.network is None


def test_a_lease_is_renewed_at_half_its_time_and_lost_at_its_end():
    server, client, host = rig(MASK, ROUTER, seconds=1000)
    server.until(client, lambda: client.stage is Stage.DONE)
    server.until(client, lambda: len(server.seen) == 3, 600 * S)
    assert 495 * S < server.lan.now < 510 * S
    assert server.seen[2].ciaddr == OURS
    server.says = lambda m: None
    server.until(client, lambda: client.stage is Stage.ASKING, 2000 * S)
    assert client.because == "the lease ran out"
    assert host.addresses == []
    assert host.routes.find(dhcp4.packed("192.0.2.1")) is None


def test_a_proxy_names_the_boot_file_and_the_dhcp_server_the_address():
    server, client, _ = rig(MASK, client={"vendor_class": "PXEClient:Arch:00007:UNDI:003016"})
    proxy = server.lan.attach(Host(b"\2\0\0\0\0\x22", b"proxy secret....."))
    proxy.add_address(dhcp4.packed("10.0.0.22"), 24, 0)
    port, port_4011 = proxy.bind_udp(67), proxy.bind_udp(4011)
    file = b"x86_64/snponly.efi"

    def offer() -> bool:
        for at in (port, port_4011):
            while (found := at.take()) is not None:
                asked = dhcp4.parse(found[0])
                named = file if at is port_4011 else b""
                kind = dhcp4.OFFER if at is port else dhcp4.ACK
                if asked.type == dhcp4.DISCOVER or at is port_4011:
                    options = ((53, bytes((kind,))), (54, dhcp4.packed("10.0.0.22")), (60, b"PXEClient"))
                    answer = replace(
                        asked, op=2, siaddr="10.0.0.22" if named else "0.0.0.0", file=named, options=options
                    )
                    to = ip.BROADCAST_V4 if at is port else found[1]
                    proxy.send_udp(dhcp4.emit(answer), to, 68, at.port, server.lan.now)
        return client.stage is Stage.DONE

    server.until(client, offer)
    assert (client.network.boot_server, client.network.boot_file) == ("10.0.0.22", file.decode())
    assert client.network.address == OURS


def test_classless_routes_take_the_place_of_the_router():
    value = bytes((24, 192, 0, 2, 10, 0, 0, 7)) + bytes((0, 10, 0, 0, 8)) + bytes((16, 172, 16, 0, 0, 0, 0))
    assert classless_routes(value) == (
        ("192.0.2.0", 24, "10.0.0.7"),
        ("0.0.0.0", 0, "10.0.0.8"),
        ("172.16.0.0", 16, ""),
    )
    server, client, host = rig(MASK, ROUTER, (121, value))
    server.until(client, lambda: client.stage is Stage.DONE)
    assert host.routes.find(dhcp4.packed("8.8.8.8")).gateway == dhcp4.packed("10.0.0.8")
    assert host.routes.find(dhcp4.packed("172.16.9.9")).gateway is None


@pytest.mark.parametrize("value", [b"\x21\1\2\3\4\5\6\7\x08", b"\x18\1\2", b"\0\1\2\3", bytes(5000)])
def test_classless_routes_that_lie_end_where_they_lie(value):
    assert len(classless_routes(value)) <= 64


@pytest.mark.parametrize(("mask", "prefix"), [("255.255.255.0", 24), ("0.0.0.0", 32), ("", 32), ("255.0.255.0", 32)])
def test_a_mask_with_holes_is_not_believed(mask, prefix):
    assert _prefix(mask) == prefix


def test_giving_the_lease_back():
    server, client, host = rig(MASK, ROUTER)
    server.until(client, lambda: client.stage is Stage.DONE)
    client.stop(server.lan.now)
    server.lan.run(S)
    assert server.seen[-1].type == dhcp4.RELEASE
    assert host.addresses == []
    assert isinstance(client._client, engine.Client)
