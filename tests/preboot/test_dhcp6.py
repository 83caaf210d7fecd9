"""Our DHCPv6 client on our own host, against a small server on the simulated LAN."""

from __future__ import annotations

import random
from itertools import pairwise

from bootwire.engine import MS, S
from bootwire.engine.dhcp6_client import Wants
from bootwire.engine.ip import Host
from bootwire.preboot.dhcp6 import Dhcp6
from bootwire.preboot.impair import Faults
from bootwire.sim.lan import Lan
from bootwire.wire import dhcp6, ip6
from bootwire.wire.dhcp6 import Address, Association, Message

OURS = ip6.octets("2001:db8::50")
OPTIONS = (
    (dhcp6.DNS, ip6.octets("2001:db8::35")),
    (dhcp6.DOMAINS, b"\x03lan\x07example\0"),
    (dhcp6.BOOT_URL, b"http://[2001:db8::1]/loader.efi"),
    (dhcp6.BOOT_PARAMETERS, b"\0\x05quiet"),
)


class Server:
    """Answers; `says` may change or swallow an answer."""

    deadline = None

    def __init__(self, lan: Lan, valid: int = 4000, says=lambda m: m, preference: int = 0) -> None:
        self.lan, self.valid, self.says, self.preference = lan, valid, says, preference
        number = 1 + len(lan.hosts)
        self.host = lan.attach(Host(bytes((2, 0, 0, 0, 0, number)), b"server secret %03d" % number))
        self.host.start_ipv6(0)
        self.host.groups.add(dhcp6.SERVERS)
        self.port = self.host.bind_udp(dhcp6.SERVER_PORT)
        self.seen: list[tuple[int, Message]] = []
        self.id = b"\0\3\0\1" + self.host.mac

    def turn(self, now: int) -> None:
        while (found := self.port.take()) is not None:
            asked = dhcp6.parse(found[0])
            self.seen.append((now, asked))
            wanted = asked.option(dhcp6.SERVER_ID)
            if wanted not in (None, self.id):
                continue
            kind = dhcp6.ADVERTISE if asked.kind == dhcp6.SOLICIT else dhcp6.REPLY
            options = [(dhcp6.CLIENT_ID, asked.option(dhcp6.CLIENT_ID)), (dhcp6.SERVER_ID, self.id), *OPTIONS]
            options.append((dhcp6.PREFERENCE, bytes((self.preference,))))
            if (ia := asked.option(dhcp6.IA_NA)) is not None:
                iaid = dhcp6.parse_association(ia).iaid
                address = Address(OURS, self.valid // 2, self.valid)
                options.append((dhcp6.IA_NA, dhcp6.emit_association(Association(iaid, 0, 0, (address,)))))
            said = self.says(Message(kind, asked.xid, tuple(options)))
            if said is not None:
                self.host.send_udp(dhcp6.emit(said), found[1], found[2], dhcp6.SERVER_PORT, now)

    def kinds(self) -> list[int]:
        return [m.kind for _, m in self.seen]


def rig(wants: Wants | None = None, faults: Faults | None = None, **server) -> tuple[Lan, Server, Dhcp6, Host]:
    lan = Lan(faults or Faults(delay=MS), seed=5)
    made = Server(lan, **server)
    host = lan.attach(Host(b"\2\0\0\0\0\x99", b"client secret...."))
    host.start_ipv6(0)
    lan.run(2 * S)
    agent = Dhcp6(host, wants)
    agent.start(lan.now)
    lan.agents += [made, agent]
    return lan, made, agent, host


def test_an_address_and_what_goes_with_it():
    lan, server, client, host = rig()
    assert lan.until(lambda: client.network, 20 * S)
    network = client.network
    assert (network.address, network.valid, network.dns) == ("2001:db8::50", 4000, ("2001:db8::35",))
    assert (network.domains, network.boot_url) == (("lan.example",), "http://[2001:db8::1]/loader.efi")
    assert network.boot_parameters == ("quiet",)
    assert (OURS, 128) in host.addresses
    assert server.kinds() == [dhcp6.SOLICIT, dhcp6.REQUEST]
    assert dhcp6.parse_association(server.seen[1][1].option(dhcp6.IA_NA)).addresses[0].address == OURS


def test_without_an_address_one_exchange_is_enough():
    lan, server, client, host = rig(Wants(address=False))
    assert lan.until(lambda: client.network, 20 * S)
    assert client.network.address == ""
    assert client.network.boot_url.startswith("http://")
    assert server.kinds() == [dhcp6.INFORMATION_REQUEST]
    assert len(host.addresses) == 1


def test_lost_messages_are_said_again_with_growing_pauses():
    lan, server, client, _ = rig(says=lambda m: None)
    assert lan.until(lambda: client.failed, 200 * S)
    assert client.because == "no DHCPv6 server answered"
    times = [at for at, _ in server.seen]
    gaps = [b - a for a, b in pairwise(times)]
    assert S <= gaps[0] <= 1.1 * S
    assert all(1.8 < b / a < 2.2 for a, b in pairwise(gaps))
    elapsed = [int.from_bytes(m.option(dhcp6.ELAPSED), "big") for _, m in server.seen]
    assert elapsed[0] == 0
    assert elapsed == sorted(set(elapsed))


def test_over_a_bad_network():
    lan, _, client, _ = rig(faults=Faults(loss=0.3, duplicate=0.2, delay=MS))
    assert lan.until(lambda: client.network, 200 * S)


def test_the_server_of_higher_preference_is_taken():
    lan, low, client, _ = rig()
    high = Server(lan, preference=7)
    high.host.tick(lan.now)
    lan.agents.append(high)
    lan.run(S)
    client.start(lan.now)
    assert lan.until(lambda: client.network, 20 * S)
    assert client.network.reply.option(dhcp6.SERVER_ID) == high.id
    assert dhcp6.REQUEST in low.kinds()  # it hears by multicast that it was not chosen


def test_a_lease_is_renewed_rebound_and_lost():
    lan, server, client, host = rig(valid=1000)
    assert lan.until(lambda: client.network, 20 * S)
    start = lan.now
    assert lan.until(lambda: dhcp6.RENEW in server.kinds(), 400 * S)
    assert 245 * S < lan.now - start < 255 * S  # T1: half of the preferred lifetime
    server.says = lambda m: None
    assert lan.until(lambda: dhcp6.REBIND in server.kinds(), 800 * S)
    assert server.seen[-1][1].option(dhcp6.SERVER_ID) is None
    assert lan.until(lambda: client.network is None, 1500 * S)
    assert client.because == "the lease ran out"
    assert (OURS, 128) not in host.addresses


def test_an_address_that_somebody_has_is_declined():
    lan, server, client, host = rig()
    other = lan.attach(Host(b"\2\0\0\0\0\x77", b"other secret....."))
    other.add_address(OURS, 128, 0)
    assert lan.until(lambda: dhcp6.DECLINE in server.kinds(), 30 * S)
    assert client.network is None
    assert (OURS, 128) not in host.addresses


def test_a_lease_is_given_back():
    lan, server, client, host = rig()
    assert lan.until(lambda: client.network, 20 * S)
    client.stop(lan.now)
    lan.run(S)
    assert server.kinds()[-1] == dhcp6.RELEASE
    assert (OURS, 128) not in host.addresses


def test_answers_for_others_or_by_nobody_are_not_believed():
    draw = random.Random(3)

    def spoil(m: Message) -> Message:
        kept = [o for o in m.options if draw.random() < 0.7]
        return Message(m.kind, m.xid if draw.random() < 0.5 else 1, tuple(kept))

    lan, _, client, host = rig(Wants(patience=300 * S), says=spoil)
    lan.until(lambda: client.network, 400 * S)
    for _, address in enumerate(host.addresses):
        assert address[0] == OURS or address[0].startswith(b"\xfe\x80")
    if client.network is not None:
        reply = client.network.reply
        assert reply.option(dhcp6.CLIENT_ID) == dhcp6.duid_from_mac(host.mac)
        assert reply.option(dhcp6.SERVER_ID)
