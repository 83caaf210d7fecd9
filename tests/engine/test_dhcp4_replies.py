"""ProxyDHCP offers and boot server answers, octet by octet where a client reads octets."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine import dhcp4 as engine
from bootwire.engine.dhcp4 import Answer, Recipe
from bootwire.policy import decide
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from dhcp_samples import NAMES, changed, messages, vector

RECIPES = get_args(Recipe)
FILE = b"52-54-00-12-34-56/x86_64/snponly.efi"


def answer(recipe: Recipe = "binl", file: bytes = FILE, vendor: bytes = b"PXEClient") -> Answer:
    return Answer(recipe, "192.0.2.10", file, vendor)


def offered(name: str = "edk2-x64-discover", what: Answer | None = None, **options: bytes | None) -> Message:
    found = engine.offer(changed(name, **options), what or answer())
    assert found is not None
    return found


def acknowledged(name: str = "edk2-x64-binl-request", what: Answer | None = None, **options: bytes | None) -> Message:
    found = engine.acknowledge(changed(name, **options), what or answer())
    assert found is not None
    return found


# --- recipes ----------------------------------------------------------------------------------------------------


def test_a_binl_offer_octet_for_octet():
    expected = bytes.fromhex(
        "02010600 12345678 0000 8000  00000000 00000000 c000020a 00000000  525400123456" + "00" * 10
    )
    expected += b"192.0.2.10".ljust(64, b"\0") + FILE.ljust(128, b"\0") + bytes.fromhex("63825363")
    expected += bytes.fromhex("350102 3604c000020a 3c09") + b"PXEClient"
    expected += bytes.fromhex("6111 00 33221100554477668899aabbccddeeff")
    expected += b"\x42\x0b192.0.2.10\0" + b"\x43\x25" + FILE + b"\0" + b"\xff"
    assert dhcp4.emit(offered()) == expected


@pytest.mark.parametrize("recipe", ["binl", "ipxe", "http-boot"])
def test_uefi_and_ipxe_get_no_option_43(recipe):
    assert offered(what=answer(recipe)).option(43) is None


def test_a_direct_offer_says_take_the_file_and_has_a_prompt():
    value = offered("intel-bios-discover", answer("direct")).option(43)
    assert value == bytes.fromhex("06 01 08  0a 04 00 50 58 45  ff")


def test_a_raspberry_pi_offer_has_the_text_its_rom_looks_for():
    message = offered("raspberry-pi3-discover", answer("raspberry", b""))
    assert message.option(43) == bytes.fromhex("06 01 03  0a 04 00 50 58 45  09 14 00 00 11") + b"Raspberry Pi Boot\xff"
    assert (message.option(67), message.siaddr) == (None, "192.0.2.10")


def test_a_menu_offer_lists_us_alone_and_chooses_at_once():
    value = offered(what=answer("menu")).option(43)
    assert value is not None
    pxe = dhcp4.parse_pxe(value)
    assert pxe.control == dhcp4.NO_BROADCAST | dhcp4.NO_MULTICAST
    assert pxe.servers == ((engine.MENU_TYPE, ("192.0.2.10",)),)
    assert pxe.menu[0][0] == engine.MENU_TYPE
    assert pxe.prompt is not None
    assert pxe.prompt[0] == 0


def test_an_http_offer_names_itself_httpclient_and_gives_a_url():
    url = b"http://192.0.2.10/boot/52-54-00-12-34-56/x86_64/snponly.efi"
    message = offered("edk2-http-x64-discover", answer("http-boot", url, b"HTTPClient"))
    assert (message.option(60), message.option(67), message.file) == (b"HTTPClient", url + b"\0", url)


def test_the_two_rooms_mean_the_same_recipes():
    assert get_args(Recipe) == get_args(decide.Recipe)


# --- every place a client looks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [offered, acknowledged])
def test_server_and_file_stand_in_every_place(build):
    message = build()
    assert message.siaddr == "192.0.2.10"
    assert message.sname == b"192.0.2.10"
    assert message.option(54) == bytes((192, 0, 2, 10))
    assert message.option(66) == b"192.0.2.10\0"
    assert message.file == FILE
    assert message.option(67) == FILE + b"\0"


def test_a_file_too_long_for_the_header_stands_in_option_67_alone():
    message = offered(what=answer(file=b"x" * 128))
    assert (message.file, message.option(67)) == (b"", b"x" * 128 + b"\0")


def test_the_request_is_echoed():
    request = replace(changed("edk2-x64-relayed-discover"), htype=6, hlen=16, chaddr=bytes(range(16)))
    reply = engine.offer(request, answer())
    assert reply is not None
    same = ("xid", "htype", "hlen", "chaddr", "giaddr")
    assert [getattr(reply, name) for name in same] == [getattr(request, name) for name in same]


@pytest.mark.parametrize("value", [b"\0", b"\0" * 17, b"\xff" * 17, b"odd", b"x" * 40])
def test_option_97_comes_back_as_it_came(value):
    assert offered(o97=value).option(97) == value


def test_without_option_97_there_is_none_in_the_reply():
    assert offered(o97=None).option(97) is None


def test_relay_information_comes_back_unchanged_and_last():
    request = changed("edk2-x64-relayed-discover")
    reply = engine.offer(request, answer("menu"))
    assert reply is not None
    assert reply.options[-1] == (82, request.option(82))


# --- boot server ------------------------------------------------------------------------------------------------


def test_an_ack_keeps_the_clients_address_and_gives_none():
    message = acknowledged()
    assert (message.type, message.ciaddr, message.yiaddr, message.flags) == (dhcp4.ACK, "192.0.2.100", "0.0.0.0", 0)


def test_an_ack_to_a_client_without_address_asks_for_broadcast():
    request = replace(changed("edk2-x64-binl-request"), ciaddr="0.0.0.0")
    reply = engine.acknowledge(request, answer())
    assert reply is not None
    assert reply.flags == dhcp4.BROADCAST


def test_a_boot_item_comes_back():
    assert acknowledged("ipxe-boot-item-request").option(43) == bytes.fromhex("47 04 80 01 00 00 ff")


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"\x47\x09\x01", b"\x47\x03\x01\x02\x03\xff"])
def test_what_is_no_boot_item_is_not_echoed(value):
    assert acknowledged("ipxe-boot-item-request", o43=value).option(43) is None


# --- sizes ------------------------------------------------------------------------------------------------------


def test_a_client_of_576_octets_gets_no_more():
    big = {"o57": b"\x02\x40", "o97": b"x" * 255}
    reply = offered("edk2-x64-relayed-discover", answer("menu"), **big)
    assert len(dhcp4.emit(reply)) <= 548
    assert reply.file == FILE


def test_what_the_header_says_too_is_what_is_left_out_first():
    reply = offered("edk2-x64-relayed-discover", answer("menu"), o57=b"\x02\x40", o97=b"x" * 143)
    assert [code for code, _ in reply.options] == [53, 54, 60, 97, 43, 67, 82]


def test_where_nothing_fits_there_is_no_reply():
    assert engine.offer(changed("edk2-x64-discover", o82=b"x" * 1000), answer()) is not None
    assert engine.offer(changed("edk2-x64-discover", o82=b"x" * 1000, o57=None), answer()) is None
    assert engine.offer(changed("edk2-x64-discover", o82=b"x" * 1400, o57=b"\xff\xff"), answer()) is None


# --- anything at all --------------------------------------------------------------------------------------------


def follows_the_rules(request: Message, reply: Message | None) -> None:
    if reply is None:
        return
    data = dhcp4.emit(reply)
    assert dhcp4.parse(data) == reply
    assert 300 <= len(data) <= max(300, min(request.max_octets, 1472))
    assert (reply.op, reply.yiaddr, reply.xid) == (2, "0.0.0.0", request.xid)
    assert reply.type in (dhcp4.OFFER, dhcp4.ACK)
    assert all(value for _, value in reply.options)
    codes = [code for code, _ in reply.options]
    assert codes[:2] == [53, 54]
    assert not set(codes) & {50, 52, 55, 57, 93, 94}
    assert 82 not in codes[:-1]
    at, end = 240, data.rstrip(b"\0")
    while at < len(end) - 1:  # no PAD between options: FreeBSD's loader trips over it
        assert data[at]
        at += 2 + data[at + 1]
    assert end[-1] == 255


recipes = st.sampled_from(RECIPES)
files = st.sampled_from([b"", FILE, b"x" * 127, b"x" * 200])


@given(messages(), recipes, files)
def test_replies_to_anything_follow_the_rules(request, recipe, file):
    for build in (engine.offer, engine.acknowledge):
        follows_the_rules(request, build(request, answer(recipe, file)))


def test_replies_to_real_clients_follow_the_rules():
    for name, recipe, build in itertools.product(NAMES, RECIPES, (engine.offer, engine.acknowledge)):
        request = dhcp4.parse(vector(name))
        follows_the_rules(request, build(request, answer(recipe)))
