"""BootServer: where replies go, what counts as a copy or a retry, what is told and what is remembered."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.boot_server import (
    Ask,
    BootServer,
    Datagram,
    Effect,
    Send,
    Settings,
    blob_url,
    loader_name,
    split_machine,
)  # fmt: skip
from bootwire.engine import MS, Ns, S
from bootwire.facts import (
    AddressSeen,
    Decided,
    DhcpHeard,
    Discovered,
    Fact,
    Offered,
    PxeAnswered,
    PxeRequested,
    Refused,
    RivalSeen,
    Silent,
    Warned,
)  # fmt: skip
from bootwire.policy.decide import LOADERS, Offerings
from bootwire.policy.inventory import Hardware
from bootwire.policy.target import Image, Menu, Silence, Target, Traits
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from dhcp_samples import NAMES, changed, messages, vector

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


# --- port 67: where an offer goes ---------------------------------------------------------------------------------


def test_an_offer_is_broadcast_from_port_67_of_the_receiving_interface():
    send, message = only_send(server().receive(datagram("edk2-x64-discover"), S))
    assert (send.to, send.from_port, send.ours, send.interface) == (("255.255.255.255", 68), 67, OURS, "eth0")
    assert message.flags & dhcp4.BROADCAST


def test_each_interface_answers_with_its_own_address():
    other = datagram("edk2-x64-discover", ours="198.51.100.10")
    send, message = only_send(server().receive(other, S))
    assert (send.ours, message.siaddr) == ("198.51.100.10", "198.51.100.10")
    assert message.option(dhcp4.SERVER_ID) == dhcp4.packed("198.51.100.10")


def test_a_relayed_discover_is_answered_at_the_relays_port_67():
    send, message = only_send(server().receive(datagram("edk2-x64-relayed-discover", ("198.51.100.1", 67)), S))
    assert send.to == ("198.51.100.1", 67)
    assert message.options[-1] == (82, dhcp4.parse(vector("edk2-x64-relayed-discover")).option(82))


@pytest.mark.parametrize(("sub", "port"), [(b"\x13\x00", 50067), (b"\x01\x01a", 67), (b"\x13", 67), (b"", 67)])
def test_a_relay_is_answered_at_the_port_it_asks_for(sub, port):
    request = changed("edk2-x64-relayed-discover", o82=sub)
    send, _ = only_send(server().receive(datagram(request, ("198.51.100.1", 50067)), S))
    assert send.to == ("198.51.100.1", port)


@pytest.mark.parametrize("giaddr", ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.1", OURS])
def test_no_offer_goes_to_an_address_that_is_no_relay(giaddr):
    effects = server().receive(datagram(discover(giaddr=giaddr)), S)
    assert sent(effects) == []
    assert facts(effects, Silent)


def test_a_discover_with_an_old_address_is_answered_all_the_same():
    assert sent(server().receive(datagram(discover(ciaddr="192.0.2.55")), S))


# --- port 67: what is told ----------------------------------------------------------------------------------------


def test_the_facts_of_an_offer():
    effects = server().receive(datagram("edk2-x64-discover"), S)
    (discovered,) = facts(effects, Discovered)
    (offered,) = facts(effects, Offered)
    assert (discovered.machine, discovered.client, discovered.arch, discovered.retry) == (MAC, "UEFI x64", 7, 0)
    assert (offered.recipe, offered.boot_file) == ("binl", "52-54-00-12-34-56/x86_64/snponly.efi")


def test_facts_come_in_the_order_in_which_things_happen():
    kinds = [type(effect) for effect in server().receive(datagram("edk2-x64-discover"), S)]
    assert kinds == [Discovered, Send, Offered]


def test_a_quirk_reaches_the_journal():
    (offered,) = facts(server().receive(datagram("intel-bios-no-machine-id-discover"), S), Offered)
    assert offered.because.endswith("[no-machine-id]")


@pytest.mark.parametrize(
    ("name", "recipe", "boot_file"),
    [
        ("intel-bios-discover", "direct", "52-54-00-12-34-56/bios/undionly.kpxe"),
        ("edk2-arm64-discover", "binl", "52-54-00-12-34-56/arm64/snponly.efi"),
        ("edk2-guid-as-chaddr-discover", "binl", "x86_64/snponly.efi"),
        (
            "ipxe-bios-discover",
            "ipxe",
            "http://192.0.2.10:8080/boot.ipxe?mac=52-54-00-12-34-56&arch=${buildarch}&platform=${platform}",
        ),
        ("ipxe-crippled-discover", "ipxe", "08-00-27-aa-bb-cc/bios/undionly.kpxe"),
        ("edk2-http-x64-discover", "http-boot", "http://192.0.2.10:8080/boot/52-54-00-12-34-56/x86_64/snponly.efi"),
    ],
)
def test_the_boot_file_of_each_recipe(name, recipe, boot_file):
    effects = server(http_port=8080).receive(datagram(name), S)
    (offered,) = facts(effects, Offered)
    assert (offered.recipe, offered.boot_file) == (recipe, boot_file)
    assert only_send(effects)[1].boot_file == boot_file.encode()


@pytest.mark.parametrize(
    "name", ["u-boot-arm64-discover", "freebsd-loader-discover", "raspberry-pi3-discover", "dhclient-discover",
             "bootp-request", "bsdp-inform"]
)  # fmt: skip
def test_who_is_none_of_ours_is_met_with_a_told_silence(name):
    effects = server().receive(datagram(name), S)
    assert sent(effects) == []
    assert len(facts(effects, Silent)) == 1


def test_the_same_silence_is_told_once_a_minute():
    boots = server()
    told = [len(facts(boots.receive(datagram("dhclient-discover"), at * S), Silent)) for at in (1, 5, 60, 61, 62)]
    assert told == [1, 0, 0, 1, 0]


@pytest.mark.parametrize("kind", [dhcp4.DECLINE, dhcp4.RELEASE, dhcp4.INFORM])
def test_what_a_host_says_to_its_dhcp_server_is_not_our_business(kind):
    assert server().receive(datagram(changed("dhclient-discover", o53=bytes((kind,)))), S) == []


def test_mode_off_leaves_port_67_alone_but_answers_port_4011():
    boots = server(mode="off")
    assert sent(boots.receive(datagram("edk2-x64-discover"), S)) == []
    assert sent(boots.receive(datagram("edk2-x64-binl-request", ("192.0.2.100", 4011), "pxe"), S))


def test_a_kernel_that_does_not_fit_is_warned_about_once():
    boots = server(offerings=Offerings(loaders=ALL.loaders, suits=frozenset({"arm64"})))
    first = boots.receive(datagram("edk2-x64-discover"), S)
    assert sent(first)
    assert len(facts(first, Warned)) == 1
    assert facts(boots.receive(datagram(discover(xid=2)), 20 * S), Warned) == []


# --- port 4011 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "port"), [("edk2-x64-binl-request", 4011), ("ipxe-proxy-request", 68)])
def test_a_boot_server_request_is_answered_where_it_came_from(name, port):
    effects = server().receive(datagram(name, ("192.0.2.100", port), "pxe"), S)
    send, message = only_send(effects)
    assert (send.to, send.from_port) == (("192.0.2.100", port), 4011)
    assert (message.type, message.yiaddr, message.siaddr) == (dhcp4.ACK, "0.0.0.0", OURS)
    assert [type(effect) for effect in effects] == [PxeRequested, Send, PxeAnswered]


def test_behind_nat_the_packets_source_counts_not_what_it_says():
    effects = server().receive(datagram("edk2-x64-binl-request", ("203.0.113.9", 61000), "pxe"), S)
    assert only_send(effects)[0].to == ("203.0.113.9", 61000)


def test_without_ciaddr_the_answer_is_broadcast_too():
    request = replace(changed("edk2-x64-binl-request"), ciaddr="0.0.0.0")
    there = server().receive(datagram(request, ("192.0.2.100", 4011), "pxe"), S)
    assert [send.to for send in sent(there)] == [("192.0.2.100", 4011), ("255.255.255.255", 68)]
    nowhere = server().receive(datagram(request, ("0.0.0.0", 68), "pxe"), S)
    assert [send.to for send in sent(nowhere)] == [("255.255.255.255", 68)]


@pytest.mark.parametrize("kind", [dhcp4.REQUEST_LEASE, dhcp4.INFORM])
def test_request_and_inform_are_answered(kind):
    request = changed("edk2-x64-binl-request", o53=bytes((kind,)))
    assert sent(server().receive(datagram(request, ("192.0.2.100", 4011), "pxe"), S))


@pytest.mark.parametrize("kind", [dhcp4.DISCOVER, dhcp4.DECLINE, dhcp4.RELEASE, 200])
def test_other_types_on_port_4011_meet_silence(kind):
    request = changed("edk2-x64-binl-request", o53=bytes((kind,)))
    effects = server().receive(datagram(request, ("192.0.2.100", 4011), "pxe"), S)
    assert sent(effects) == []
    assert facts(effects, Silent)


@pytest.mark.parametrize("name", ["dhclient-discover", "freebsd-loader-discover"])
def test_who_is_no_pxe_client_is_not_answered_on_port_4011(name):
    request = changed(name, o53=b"\3")
    assert sent(server().receive(datagram(request, ("192.0.2.100", 4011), "pxe"), S)) == []


def test_a_boot_item_is_echoed_and_told():
    effects = server().receive(datagram("ipxe-boot-item-request", ("192.0.2.100", 68), "pxe"), S)
    assert facts(effects, PxeRequested)[0].item == 0x8001
    assert only_send(effects)[1].option(43) == bytes.fromhex("470480010000ff")


def test_signed_boot_items_are_not_served():
    request = changed("ipxe-boot-item-request", o43=bytes.fromhex("470480008000ff"))
    assert sent(server().receive(datagram(request, ("192.0.2.100", 68), "pxe"), S)) == []


def test_discovery_by_broadcast_is_answered_for_our_own_type_alone():
    ours = changed("ipxe-boot-item-request", o43=bytes.fromhex("470480000000ff"))
    send, _ = only_send(server().receive(datagram(ours, ("192.0.2.100", 68)), S))
    assert (send.to, send.from_port) == (("192.0.2.100", 68), 67)
    assert sent(server().receive(datagram("ipxe-boot-item-request", ("192.0.2.100", 68)), S)) == []


def test_the_same_loader_is_named_on_both_ports():
    boots = server()
    offered = only_send(boots.receive(datagram("edk2-x64-discover"), S))[1]
    answered = only_send(boots.receive(datagram("edk2-x64-binl-request", ("192.0.2.100", 4011), "pxe"), 5 * S))[1]
    assert answered.boot_file == offered.boot_file


# --- copies and retries -------------------------------------------------------------------------------------------


def recipe_at(boots: BootServer, what: Message, now: Ns) -> str:
    return facts(boots.receive(datagram(what), now), Offered)[0].recipe


def test_a_copy_within_half_a_second_is_answered_once():
    boots = server()
    assert sent(boots.receive(datagram("edk2-x64-discover"), S))
    assert boots.receive(datagram("edk2-x64-discover"), S + 100 * MS) == []


def test_a_relays_copy_is_answered_at_the_relay_in_the_same_shape_and_told_once():
    boots = server()
    boots.receive(datagram("edk2-x64-discover"), S)
    effects = boots.receive(datagram(discover(giaddr="198.51.100.1"), ("198.51.100.1", 67)), S + 2 * MS)
    assert [send.to for send in sent(effects)] == [("198.51.100.1", 67)]
    assert [fact.recipe for fact in facts(effects, Offered)] == ["binl"]
    assert facts(effects, Discovered) == []


def test_one_discover_gets_no_more_answers_than_there_are_sane_relays():
    boots = server()
    relays = (f"198.51.100.{last}" for last in range(1, 200))
    answers = [sent(boots.receive(datagram(discover(giaddr=relay)), S)) for relay in relays]
    assert sum(map(len, answers)) == 16


def test_a_retry_gets_the_next_shape_and_is_counted():
    boots = server()
    effects = [boots.receive(datagram(discover(secs=secs)), (1 + secs) * S) for secs in (0, 4, 12, 28)]
    assert [facts(each, Offered)[0].recipe for each in effects] == ["binl", "direct", "menu", "menu"]
    assert [facts(each, Discovered)[0].retry for each in effects] == [0, 1, 2, 3]


def test_bios_gets_its_own_ladder():
    boots = server()
    found = [recipe_at(boots, discover("intel-bios-discover", secs=secs), secs * S) for secs in (4, 8, 16)]
    assert found == ["direct", "binl", "binl"]


def test_another_attempt_starts_again_from_the_first_shape():
    boots = server()
    assert recipe_at(boots, discover(), S) == "binl"
    assert recipe_at(boots, discover(xid=99), 5 * S) == "binl"


def test_a_rom_that_keeps_its_xid_over_a_reset_starts_again():
    boots = server()
    found = [recipe_at(boots, discover(secs=secs), at * S) for at, secs in ((1, 4), (5, 8), (20, 4), (200, 4))]
    assert found == ["binl", "direct", "binl", "binl"]


def test_what_brought_one_machine_to_port_4011_is_tried_first_on_its_like():
    boots = server()
    boots.receive(datagram(discover()), S)
    boots.receive(datagram(discover(secs=4)), 5 * S)
    boots.receive(datagram(discover(secs=12)), 13 * S)
    boots.receive(datagram("edk2-x64-binl-request", ("192.0.2.100", 4011), "pxe"), 17 * S)
    twin = bytes.fromhex("525400abcdef") + bytes(10)
    assert recipe_at(boots, discover(xid=7, chaddr=twin), 60 * S) == "menu"
    assert recipe_at(boots, discover("edk2-arm64-discover", xid=8), 60 * S) == "binl"


# --- loaders that loop --------------------------------------------------------------------------------------------


def file_at(boots: BootServer, what: Message, now: Ns) -> str:
    (offered,) = facts(boots.receive(datagram(what), now), Offered)
    return offered.boot_file.split("/", 1)[1]


def crippled(xid: int) -> Message:
    return discover("ipxe-crippled-discover", xid=xid)


VBOX = "08:00:27:aa:bb:cc"


def test_a_chain_that_goes_in_circles_gets_another_loader_then_silence():
    boots = server()
    for xid, name in ((1, "bios/undionly.kpxe"), (2, "bios/ipxe.pxe")):
        assert file_at(boots, crippled(xid), xid * 20 * S) == name
        boots.note_loader_served(VBOX, name, (xid * 20 + 1) * S)
    effects = boots.receive(datagram(crippled(3)), 60 * S)
    assert sent(effects) == []
    assert "circles" in facts(effects, Silent)[0].because


def test_a_loader_offered_but_never_fetched_is_offered_again():
    boots = server()
    assert file_at(boots, crippled(1), 20 * S) == file_at(boots, crippled(2), 40 * S) == "bios/undionly.kpxe"


def test_a_machine_that_came_further_gets_the_same_loader_in_its_next_boot():
    boots = server()
    file_at(boots, crippled(1), 20 * S)
    boots.note_loader_served(VBOX, "bios/undionly.kpxe", 21 * S)
    full = replace(discover("ipxe-bios-discover", xid=2), chaddr=crippled(1).chaddr)
    (offered,) = facts(boots.receive(datagram(full), 25 * S), Offered)
    assert "boot.ipxe" in offered.boot_file
    assert file_at(boots, crippled(3), 50 * S) == "bios/undionly.kpxe"


def test_a_circle_is_forgotten_after_two_minutes():
    boots = server()
    file_at(boots, crippled(1), 20 * S)
    boots.note_loader_served(VBOX, "bios/undionly.kpxe", 21 * S)
    assert file_at(boots, crippled(2), 150 * S) == "bios/undionly.kpxe"


def test_firmware_whose_loader_never_showed_a_sign_of_life_gets_another_one():
    boots = server()
    assert file_at(boots, discover(), S) == "x86_64/snponly.efi"
    boots.note_loader_served(MAC, "x86_64/snponly.efi", 6 * S)
    effects = boots.receive(datagram(discover(xid=2)), 30 * S)
    assert facts(effects, Offered)[0].boot_file.endswith("x86_64/ipxe.efi")
    assert "never started" in facts(effects, Warned)[0].what


@pytest.mark.parametrize("sign", ["script", "discover"])
def test_firmware_whose_loader_lived_gets_the_same_one_next_time(sign):
    boots = server()
    file_at(boots, discover(), S)
    boots.note_loader_served(MAC, "x86_64/snponly.efi", 6 * S)
    if sign == "script":
        boots.note_loader_started(MAC, 8 * S)
    else:
        boots.receive(datagram(discover("ipxe-efi-x64-discover", xid=5)), 8 * S)
    assert file_at(boots, discover(xid=2), 30 * S) == "x86_64/snponly.efi"


def test_a_loader_whose_last_block_was_never_acknowledged_is_not_taken_for_dead():
    boots = server()
    file_at(boots, discover("intel-bios-discover"), S)
    boots.receive(datagram(discover("ipxe-bios-discover", xid=5)), 8 * S)
    boots.note_loader_served(MAC, "bios/undionly.kpxe", 12 * S)  # told when the retransmissions ended
    assert file_at(boots, discover("intel-bios-discover", xid=2), 30 * S) == "bios/undionly.kpxe"


PROGRAM = "programs/bios/hello.pxe"
HELLO = replace(ALL, programs=frozenset({PROGRAM}), program="hello")


@pytest.mark.parametrize("rom", ["intel-bios-discover", "ipxe-bios-discover"])
def test_a_boot_program_comes_once_in_a_boot_and_again_in_the_next(rom):
    """Whatever the ROM is: what the program goes on with is an iPXE that asks as the ROM may have asked."""
    boots = server(offerings=HELLO)
    for boot in (0, 1000):
        assert file_at(boots, discover(rom, xid=boot + 1), (boot + 1) * S) == PROGRAM
        boots.note_loader_served(MAC, PROGRAM, (boot + 2) * S)
        boots.note_loader_served(MAC, "bios/undionly.kpxe", (boot + 5) * S)
        boots.note_loader_started(MAC, (boot + 6) * S)  # autoexec.ipxe
        (offered,) = facts(
            boots.receive(datagram(discover("ipxe-bios-discover", xid=boot + 2)), (boot + 8) * S), Offered
        )
        assert "boot.ipxe" in offered.boot_file
        boots.note_boots(MAC, (boot + 9) * S)


def test_a_machine_that_was_reset_while_its_boot_program_ran_gets_it_again():
    boots = server(offerings=HELLO)
    for xid in (1, 2):
        assert file_at(boots, discover("ipxe-bios-discover", xid=xid), xid * 20 * S) == PROGRAM
        boots.note_loader_served(MAC, PROGRAM, (xid * 20 + 1) * S)


def test_a_loader_fetched_before_the_boot_program_is_not_what_it_went_on_to():
    boots = server(offerings=HELLO)
    file_at(boots, crippled(1), S)
    boots.note_loader_served(VBOX, "bios/undionly.kpxe", 2 * S)
    assert file_at(boots, replace(discover("ipxe-bios-discover", xid=2), chaddr=crippled(1).chaddr), 5 * S) == PROGRAM


def test_whatever_is_fetched_after_a_boot_program_counts_as_going_on():
    boots = server(offerings=HELLO)
    file_at(boots, discover("ipxe-bios-discover"), S)
    boots.note_loader_served(MAC, PROGRAM, 2 * S)
    boots.note_followed(MAC, 3 * S)
    (offered,) = facts(boots.receive(datagram(discover("ipxe-bios-discover", xid=7)), 4 * S), Offered)
    assert "boot.ipxe" in offered.boot_file


def test_a_target_may_have_a_boot_program_of_its_own():
    offerings = replace(ALL, programs=frozenset({PROGRAM}))
    boots = BootServer(Settings(offerings=offerings), lambda _: Target("a rule", program="hello"))
    assert file_at(boots, discover("intel-bios-discover"), S) == PROGRAM


def test_who_decides_sees_what_a_machine_reported_of_itself():
    seen: list[Traits] = []
    known = Hardware(MAC, memory=1)

    def deciding(traits: Traits) -> Target:
        seen.append(traits)
        return Target("")

    boots = BootServer(Settings(offerings=ALL), deciding, {MAC: known}.get)
    boots.receive(datagram(discover()), S)
    assert seen[-1].hardware == known
    traits = boots.traits_of(MAC)
    assert traits is not None
    assert traits.hardware == known


def test_a_script_beside_the_loader_does_not_hide_a_chain_that_goes_in_circles():
    boots = server()
    for xid, name in ((1, "bios/undionly.kpxe"), (2, "bios/ipxe.pxe")):
        assert file_at(boots, crippled(xid), xid * 20 * S) == name
        boots.note_loader_served(VBOX, name, (xid * 20 + 1) * S)
        boots.note_loader_started(VBOX, (xid * 20 + 2) * S)  # autoexec.ipxe
    assert sent(boots.receive(datagram(crippled(3)), 60 * S)) == []


def test_notes_of_strangers_are_ignored():
    boots = server()
    boots.note_loader_served("", "x86_64/snponly.efi", S)
    boots.note_loader_started("00:00:5e:00:53:01", S)
    assert file_at(boots, discover(), 2 * S) == "x86_64/snponly.efi"


# --- neighbours ---------------------------------------------------------------------------------------------------


def overheard(what: str | Message, source=("192.0.2.1", 67)) -> Datagram:
    return datagram(what, source)


def test_the_address_of_a_booting_machine_is_told_once():
    boots = server()
    boots.receive(datagram("edk2-x64-discover"), S)
    first = boots.observe(overheard("dhcp-ack"), 2 * S)
    assert facts(first, AddressSeen) == [AddressSeen(MAC, "192.0.2.100", "192.0.2.1")]
    assert boots.observe(overheard("dhcp-ack"), 3 * S) == []


def test_a_request_on_port_67_shows_the_address_too():
    boots = server()
    boots.receive(datagram("edk2-x64-discover"), S)
    effects = boots.receive(datagram("dhcp-request-selecting"), 2 * S)
    assert facts(effects, AddressSeen) == [AddressSeen(MAC, "192.0.2.100", "192.0.2.1")]
    assert sent(effects) == []


def test_addresses_of_hosts_that_do_not_netboot_are_known_but_not_told():
    boots = server()
    assert boots.observe(overheard("dhcp-ack"), S) == []
    assert boots.machine_at("192.0.2.100") == MAC


def test_a_boot_server_request_shows_who_has_which_address():
    boots = server()
    boots.receive(datagram("edk2-x64-binl-request", ("192.0.2.100", 4011), "pxe"), S)
    assert boots.machine_at("192.0.2.100") == MAC
    assert boots.machine_at("192.0.2.101") == ""


def test_another_netboot_server_is_told_once_a_minute():
    boots = server()
    heard = [boots.observe(overheard("pixiecore-proxy-offer", ("192.0.2.99", 67)), at * S) for at in (1, 5, 61, 62)]
    assert [len(facts(each, RivalSeen)) for each in heard] == [1, 0, 1, 0]
    rival = heard[0][0]
    assert (rival.server, rival.what, rival.boot_file) == ("192.0.2.99", "proxy offer", "52:54:00:12:34:56/0")


RIVAL = ("192.0.2.99", 67)


def _answered(boots: BootServer, machine: str, xid: int, second: int, rival=RIVAL) -> list[Effect]:
    """What is told when a machine asks, and a rival's offer to it is overheard; told twice in one attempt."""
    mac = bytes.fromhex(machine.replace(":", "")) + bytes(10)
    ask = replace(changed("edk2-x64-discover"), chaddr=mac, xid=xid)
    offer = replace(changed("pixiecore-proxy-offer"), chaddr=mac, xid=xid)
    effects = boots.receive(datagram(ask), second * S)
    return effects + [e for at in (0, 1) for e in boots.observe(overheard(offer, rival), (second + at) * S)]


def test_a_rival_is_told_in_each_attempt_of_each_machine():
    boots = server()
    told = [
        _answered(boots, machine, xid, second)
        for machine, xid, second in ((MAC, 1, 1), ("02:00:00:00:00:02", 2, 3), (MAC, 3, 20))
    ]
    machines = [[one.machine for one in facts(each, RivalSeen)] for each in told]
    assert machines == [[MAC], ["02:00:00:00:00:02"], [MAC]]


def test_a_rivals_offer_that_is_overheard_before_the_question_counts_for_it():
    boots = server()
    offer = replace(changed("pixiecore-proxy-offer"), xid=7)
    ask = replace(changed("edk2-x64-discover"), chaddr=offer.chaddr, xid=7)
    boots.observe(overheard(offer, RIVAL), S)
    assert [one.server for one in facts(boots.receive(datagram(ask), S + MS), RivalSeen)] == [RIVAL[0]]
    boots.observe(overheard(replace(offer, xid=8), RIVAL), 2 * S)
    assert facts(boots.receive(datagram(replace(ask, xid=8)), 9 * S), RivalSeen) == []


def test_our_own_offers_are_no_rivals():
    boots = server()
    send, _ = only_send(boots.receive(datagram("edk2-x64-discover"), S))
    assert boots.observe(overheard(dhcp4.parse(send.data), (OURS, 67)), S) == []
    also_ours = replace(dhcp4.parse(send.data), options=((53, b"\2"), (60, b"PXEClient")))
    assert boots.observe(Datagram(dhcp4.emit(also_ours), (OURS, 67), "dhcp", "eth1", "198.51.100.10"), S) == []


def test_a_dhcp_server_with_a_boot_file_is_told_with_what_to_do():
    effects = server().observe(overheard("dnsmasq-offer-with-file"), S)
    (rival,) = facts(effects, RivalSeen)
    (warning,) = facts(effects, Warned)
    assert (rival.server, rival.what, rival.boot_file) == ("192.0.2.1", "offer with a boot file", "pxelinux.0")
    assert "iPXE" in warning.what
    assert "192.0.2.1" in warning.fix


def test_a_dhcp_server_that_names_us_is_no_rival():
    script = replace(changed("dnsmasq-offer-with-file"), file=b"http://192.0.2.10/boot.ipxe")
    assert server().observe(overheard(script), S) == []
    ours = replace(changed("dnsmasq-offer-with-file"), siaddr=OURS)
    assert server().observe(overheard(ours), S) == []


def test_an_ordinary_offer_is_nothing_to_tell():
    assert server().observe(overheard(changed("dhcp-ack", o53=b"\2")), S) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"o53": b"\2", "o1": None}, "no subnet mask"),
        ({"o53": b"\2", "o60": b"PXEClient"}, "vendor class alone"),
        ({"o53": b"\6"}, "refusal"),
    ],
)
def test_what_a_dhcp_server_keeps_a_booting_machine_from_is_told(changes, what):
    boots = server()
    reply = overheard(changed("dhcp-ack", **changes))
    assert facts(boots.observe(reply, S), DhcpHeard) == []  # nobody who boots
    boots.receive(datagram("edk2-x64-discover"), 2 * S)
    (heard,) = facts(boots.observe(reply, 3 * S), DhcpHeard)
    assert (heard.machine, heard.server, heard.what) == (MAC, "192.0.2.1", what)


def test_an_ordinary_offer_is_told_of_a_machine_that_asks_again():
    boots = server()
    offer = overheard(changed("dhcp-ack", o53=b"\2"))
    boots.receive(datagram("edk2-x64-discover"), S)
    assert facts(boots.observe(offer, S), DhcpHeard) == []
    boots.receive(datagram("edk2-x64-discover"), 5 * S)
    assert facts(boots.observe(offer, 5 * S), DhcpHeard) == [DhcpHeard(MAC, "192.0.2.1", "offer", "192.0.2.100")]


@pytest.mark.parametrize(("secs", "proxied"), [(0b111, "yes"), (0b110, "no")])
def test_ipxe_says_in_its_request_whether_it_has_a_proxys_offer(secs, proxied):
    boots = server()
    asks = datagram("ipxe-efi-x64-discover")
    boots.receive(asks, S)
    asked = dhcp4.parse(asks.data)
    options = (
        *((code, value) for code, value in asked.options if code != 53),
        (53, b"\3"),
        (50, bytes((192, 0, 2, 7))),
    )
    effects = boots.receive(overheard(replace(asked, secs=secs, options=options), ("0.0.0.0", 68)), S)
    (seen,) = facts(effects, AddressSeen)
    assert (seen.address, seen.proxied) == ("192.0.2.7", proxied)


def test_a_dhcp_server_with_a_left_over_option_60_is_warned_about_and_outranked():
    boots = server()
    (warning,) = boots.observe(overheard(changed("dhcp-ack", o53=b"\2", o60=b"PXEClient")), S)
    assert isinstance(warning, Warned)
    assert recipe_at(boots, discover(), 2 * S) == "direct"
    assert recipe_at(boots, discover(xid=2), 4000 * S) == "binl"


# --- hostile input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["dhcp", "pxe"])
def test_a_servers_reply_to_a_server_port_is_refused(service):
    effects = server().receive(datagram("pixiecore-proxy-offer", ("192.0.2.99", 67), service), S)
    assert [type(effect) for effect in effects] == [Refused]


def test_ten_thousand_malformed_packets_are_a_handful_of_lines():
    boots = server()
    rng = random.Random(7)
    told: list[Effect] = []
    for count in range(10_000):
        junk = datagram(rng.randbytes(rng.randrange(300)), ("203.0.113.7", 1024 + count % 60000))
        told += boots.receive(junk, S + count * MS)  # ten seconds
    assert len(told) <= 12
    deadline = boots.deadline
    assert deadline is not None
    told += boots.tick(deadline)
    counted = [fact.because for fact in told if "more in 10 s" in fact.because]
    assert len(counted) >= 1
    assert boots.deadline is None


def test_the_count_of_what_was_not_told_is_exact():
    boots = server()
    told = [effect for _ in range(100) for effect in boots.receive(datagram(b"junk"), S)]
    (summary,) = boots.tick(12 * S)
    assert (len(told), summary.because) == (5, "95 more in 10 s, the last one: truncated header (octet 4)")


def test_the_next_packet_brings_the_count_where_nobody_ticks():
    boots = server()
    for _ in range(10):
        boots.receive(datagram(b"junk"), S)
    assert "5 more" in boots.receive(datagram("edk2-x64-discover"), 20 * S)[0].because


def test_memory_stays_flat_under_a_flood_of_machines():
    boots = server()
    base = bytearray(vector("edk2-x64-discover"))

    def flood(start: int, count: int) -> None:
        for number in range(start, start + count):
            base[28:34] = number.to_bytes(6, "big")
            boots.receive(datagram(bytes(base)), number * MS)

    tracemalloc.start()
    flood(1, 4_500)
    full, _ = tracemalloc.get_traced_memory()
    flood(10_000, 2_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - full < 2**18  # 2,000 new machines in place of as many old ones
    assert full < 8 * 2**20  # 2 KiB a machine


services = st.sampled_from(["dhcp", "pxe"])
ports = st.sampled_from([0, 67, 68, 4011, 50000])
sources = st.sampled_from(["0.0.0.0", "192.0.2.100", "224.0.0.1", "255.255.255.255", "127.0.0.1", OURS])


def keeps_the_promises(effects: list[Effect]) -> None:
    for send in sent(effects):
        message = dhcp4.parse(send.data)
        assert message.op == 2
        assert message.yiaddr == "0.0.0.0"
        assert message.type in (dhcp4.OFFER, dhcp4.ACK)
        assert len(send.data) <= 1472
        assert send.from_port in (67, 4011)
        first = int(send.to[0].split(".")[0])
        assert send.to == ("255.255.255.255", 68) or (0 < first < 224 and first != 127 and send.to[1])


@given(messages(), services, st.tuples(sources, ports))
def test_anything_is_answered_within_the_rules_or_not_at_all(message, service, source):
    keeps_the_promises(server().receive(datagram(message, source, service), S))
    assert sent(server().observe(datagram(message, source), S)) == []


def test_mutated_clients_are_answered_within_the_rules_or_not_at_all():
    rng = random.Random(3)
    boots = server()
    samples = [vector(name) for name in NAMES]
    for count in range(3_000):
        data = bytearray(rng.choice(samples))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        service = rng.choice(("dhcp", "pxe"))
        junk = datagram(
            bytes(data), (rng.choice(("0.0.0.0", "192.0.2.100", OURS)), rng.choice((67, 68, 4011))), service
        )
        keeps_the_promises(boots.receive(junk, count * 10 * MS))
        assert sent(boots.observe(junk, count * 10 * MS)) == []


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "machine", "rest"),
    [
        ("52-54-00-12-34-56/x86_64/snponly.efi", MAC, "x86_64/snponly.efi"),
        ("/52-54-00-12-34-56/autoexec.ipxe", MAC, "autoexec.ipxe"),
        ("52-54-00-AB-CD-EF/x", "52:54:00:ab:cd:ef", "x"),
        ("x86_64/snponly.efi", "", "x86_64/snponly.efi"),
        ("52-54-00-12-34/x", "", "52-54-00-12-34/x"),
        ("52-54-00-12-34-5\u0666/x", "", "52-54-00-12-34-5\u0666/x"),
        ("", "", ""),
    ],
)
def test_names_tell_the_machine(name, machine, rest):
    assert split_machine(name) == (machine, rest)


@pytest.mark.parametrize("machine", [MAC, ""])
def test_what_we_name_we_read(machine):
    assert split_machine(loader_name(machine, "bios/undionly.kpxe")) == (machine, "bios/undionly.kpxe")


@pytest.mark.parametrize("machine", [MAC, ""])
def test_every_name_we_give_fits_the_headers_file_field(machine):
    for loader in ALL.loaders:
        for name in (
            loader_name(machine, loader),
            blob_url("255.255.255.255", 65535, machine, loader),
        ):
            assert len(name) <= 127


def test_urls_leave_port_80_out():
    assert blob_url(OURS, 80, "", "kernel") == "http://192.0.2.10/boot/kernel"
    assert blob_url(OURS, 8080, "", "kernel") == "http://192.0.2.10:8080/boot/kernel"


# --- what each machine boots --------------------------------------------------------------------------------------


class Book:
    """What a decider knows: nothing of a machine until it is written down."""

    def __init__(self) -> None:
        self.decision: Target | Silence | None = None
        self.asked: list[Traits] = []

    def __call__(self, traits: Traits) -> Target | Silence | None:
        self.asked.append(traits)
        return self.decision


def decided_by(book: Book, **settings) -> BootServer:
    return BootServer(Settings(**{"offerings": ALL, **settings}), book)


LINUX = Target("rule 7", "rescue", kernel=Image("/srv/vmlinuz"))


def test_what_nobody_knows_yet_is_asked_for_and_answered_when_it_is_known():
    book = Book()
    boots = decided_by(book)
    waiting = datagram("edk2-x64-discover")
    effects = boots.receive(waiting, S)
    assert not sent(effects)
    (ask,) = [effect for effect in effects if isinstance(effect, Ask)]
    assert (ask.traits.platform, ask.traits.firmware, ask.traits.stage) == ("x86_64", "uefi", "discover")
    book.decision = LINUX
    effects = boots.resume(waiting, 3 * S)
    only_send(effects)
    assert facts(effects, Discovered) == []  # that was told when it came
    assert [(fact.profile, fact.because) for fact in facts(effects, Decided)] == [("rescue", "rule 7")]


def test_repeats_while_it_is_asked_for_do_not_change_the_shape_of_the_first_offer():
    book = Book()
    boots = decided_by(book)
    first, second = discover(secs=0), discover(secs=4)
    boots.receive(datagram(first), S)
    boots.receive(datagram(second), 5 * S)
    book.decision = LINUX
    (offer,) = facts(boots.resume(datagram(first), 6 * S), Offered)
    assert offer.recipe == "binl"
    assert boots.resume(datagram(second), 6 * S) == []  # one answer is enough


def test_an_answer_that_comes_too_late_for_its_attempt_is_not_given():
    book = Book()
    boots = decided_by(book)
    boots.receive(datagram(discover(xid=1)), S)
    boots.receive(datagram(discover(xid=2)), 200 * S)
    book.decision = LINUX
    assert boots.resume(datagram(discover(xid=1)), 201 * S) == []


def test_a_decision_that_never_came_is_silence_with_a_reason():
    boots = decided_by(Book())
    boots.receive(datagram("edk2-x64-discover"), S)
    (silent,) = facts(boots.resume(datagram("edk2-x64-discover"), 2 * S), Silent)
    assert "in time" in silent.because


@pytest.mark.parametrize(
    ("decision", "because"),
    [(Silence("no rule is about it"), "no rule is about it"), (Target("rule 3", local=True), "own disk: rule 3")],
)
def test_a_machine_that_boots_nothing_from_here_gets_no_offer(decision: Target | Silence, because: str):
    book = Book()
    book.decision = decision
    effects = decided_by(book).receive(datagram("edk2-x64-discover"), S)
    assert not sent(effects)
    assert because in facts(effects, Silent)[0].because


def test_port_4011_asks_too_and_answers_where_the_request_came_from():
    book = Book()
    boots = decided_by(book)
    request = datagram("edk2-x64-binl-request", ("192.0.2.57", 4011), "pxe")
    effects = boots.receive(request, S)
    assert [type(effect) for effect in effects] == [PxeRequested, Ask]
    book.decision = LINUX
    effects = boots.resume(request, 2 * S)
    assert ("192.0.2.57", 4011) in [send.to for send in sent(effects)]
    assert facts(effects, PxeRequested) == []


def test_an_ipxe_that_firmware_brought_is_decided_with_what_the_firmware_said():
    book = Book()
    book.decision = LINUX
    boots = decided_by(book)
    http = discover("edk2-http-x64-discover")
    boots.receive(datagram(http), S)
    boots.receive(datagram(discover("ipxe-efi-x64-discover", chaddr=http.chaddr, xid=9)), 2 * S)
    assert [(traits.firmware, traits.loader) for traits in book.asked] == [("uefi-http", ""), ("uefi-http", "ipxe")]


def test_what_smbios_tells_once_is_known_from_then_on():
    book = Book()
    book.decision = LINUX
    boots = decided_by(book)
    boots.receive(datagram("edk2-x64-discover"), S)
    (machine,) = {traits.machine for traits in book.asked}
    boots.note_traits(replace(book.asked[0], serial="7CZ1", product="PowerEdge"))
    boots.receive(datagram(discover(xid=77)), 500 * S)
    assert (book.asked[-1].serial, book.asked[-1].product) == ("7CZ1", "PowerEdge")
    assert boots.traits_of(machine) is not None


def lease_request(mac: bytes, address: str) -> Datagram:
    """A client asks its DHCP server for `address`."""
    wanted = ((dhcp4.MESSAGE_TYPE, bytes((dhcp4.REQUEST_LEASE,))), (dhcp4.REQUESTED_ADDRESS, dhcp4.packed(address)))
    return datagram(replace(discover(), chaddr=mac, options=wanted))


def test_only_who_asks_from_the_address_that_dhcp_showed_is_the_machine():
    book = Book()
    book.decision = LINUX
    boots = decided_by(book)

    def proved(address: str, now: Ns) -> tuple[int, str]:
        found = boots.proved(Traits(machine, address=address), now)
        return found.boot, found.unproved

    machine = discover().mac
    assert proved("192.0.2.57", S) == (0, "no DHCP message of it was heard here")
    boots.receive(datagram("edk2-x64-discover"), S)
    assert proved("192.0.2.57", S) == (0, "which address it has was not heard here")
    boots.receive(lease_request(discover().chaddr, "192.0.2.57"), 2 * S)
    assert proved("192.0.2.57", 3 * S) == (1, "")
    assert proved("192.0.2.99", 3 * S) == (0, "192.0.2.99 asked, and by DHCP it is at 192.0.2.57")
    assert proved("192.0.2.57", 902 * S) == (0, "no DHCP message of it was heard here in the last 15 minutes")
    boots.receive(datagram(discover(xid=77)), 903 * S)
    boots.receive(lease_request(discover().chaddr, "192.0.2.58"), 904 * S)
    assert proved("192.0.2.57", 905 * S)[0] == 0
    assert proved("192.0.2.58", 905 * S) == (2, "")


def test_a_boot_server_request_shows_a_boot_and_its_address_once_however_often_it_is_sent():
    boots = decided_by(Book())
    request = datagram("edk2-x64-binl-request", ("192.0.2.100", 4011), "pxe")
    machine = discover("edk2-x64-binl-request").mac
    for now in (S, 2 * S):
        boots.receive(request, now)
        assert boots.proved(Traits(machine, address="192.0.2.100"), now).boot == 1


def test_a_relays_circuit_and_remote_id_are_read_as_text_or_as_octets():
    book = Book()
    book.decision = LINUX
    option82 = b"\x01\x04eth7\x02\x03\x00\x9f\x01"
    message = discover(giaddr="198.51.100.1")
    message = replace(message, options=(*message.options, (dhcp4.RELAY_AGENT, option82)))
    decided_by(book).receive(datagram(message, ("198.51.100.1", 67)), S)
    traits = book.asked[0]
    assert (traits.circuit_id, traits.remote_id, traits.link) == ("eth7", "0x009f01", "198.51.100.1")


# --- menus --------------------------------------------------------------------------------------------------------

CHOICES = Menu((("rescue", "Rescue"), ("", "Own disk"), ("debian", "Debian")), "Choose", 10)


def item_request(boots: BootServer, item: int, now: Ns) -> list[Effect]:
    request = discover("ipxe-boot-item-request")
    vendor = dhcp4.emit_pxe(dhcp4.Pxe(item=(item, 0)))
    options = tuple((code, vendor if code == dhcp4.VENDOR_SPECIFIC else value) for code, value in request.options)
    return boots.receive(datagram(replace(request, options=options), ("192.0.2.57", 68), "pxe"), now)


def test_a_menu_is_in_the_offer_as_pxe_has_it():
    book = Book()
    book.decision = Target("rule 1", "choose", menu=CHOICES)
    _, message = only_send(decided_by(book).receive(datagram("ipxe-bios-discover"), S))
    pxe = dhcp4.parse_pxe(message.option(dhcp4.VENDOR_SPECIFIC))
    assert pxe.menu == ((0x8000, b"Rescue"), (0, b"Own disk"), (0x8002, b"Debian"))
    assert pxe.prompt == (10, b"Choose")
    assert pxe.servers == ((0x8000, (OURS,)), (0x8002, (OURS,)))


def test_what_is_chosen_is_known_to_who_decides_for_the_rest_of_the_boot():
    book = Book()
    book.decision = Target("rule 1", "choose", menu=CHOICES)
    boots = decided_by(book)
    first = discover("ipxe-bios-discover", chaddr=discover("ipxe-boot-item-request").chaddr)
    boots.receive(datagram(first), S)
    effects = item_request(boots, 0x8002, 2 * S)
    assert facts(effects, PxeAnswered)
    assert book.asked[-1].choice == "debian"
    assert boots.traits_of(book.asked[-1].machine).choice == "debian"
    boots.receive(datagram(replace(first, xid=98)), 20 * S)  # its loader, or itself once more
    assert book.asked[-1].choice == "debian"
    boots.receive(datagram(replace(first, xid=99)), 900 * S)  # the next boot
    assert book.asked[-1].choice == ""


@pytest.mark.parametrize("item", [0x8003, 0x7FFF, 1])
def test_an_entry_that_was_not_in_the_menu_is_not_answered(item: int):
    book = Book()
    book.decision = Target("rule 1", "choose", menu=CHOICES)
    boots = decided_by(book)
    boots.receive(datagram(discover("ipxe-bios-discover", chaddr=discover("ipxe-boot-item-request").chaddr)), S)
    effects = item_request(boots, item, 2 * S)
    assert not sent(effects)
    assert "which this one is not" in facts(effects, Silent)[0].because


def test_pxelinux_is_told_where_everything_else_is():
    offerings = Offerings(frozenset(("bios/lpxelinux.0", *LOADERS["bios"])), loader="pxelinux")
    _, message = only_send(server(offerings=offerings).receive(datagram("intel-bios-discover"), S))
    assert message.boot_file.endswith(b"/bios/lpxelinux.0")
    assert message.option(210) == f"http://{OURS}/pxelinux/{message.mac.replace(':', '-')}/".encode()
