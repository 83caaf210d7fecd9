"""Option values as people read them: each shape once, and what makes no sense as octets."""

from __future__ import annotations

import random

import pytest

from bootwire.observe import options, options6
from bootwire.wire import dhcp4
from dhcp_samples import NAMES, vector

IPXE_BIOS = bytes.fromhex("b105011af41000eb03020000170101130101220100")
MICROSOFT = b"MSFT 5.0"


@pytest.mark.parametrize(("code", "value", "text"), [
    (53, b"\x0d", "LEASEACTIVE"),
    (53, b"\x63", "63"),
    (3, bytes((192, 0, 2, 1, 192, 0, 2, 2)), "192.0.2.1, 192.0.2.2"),
    (3, b"\1\2\3", "01 02 03"),
    (2, b"\xff\xff\xf1\xf0", "-3600"),
    (19, b"\1", "yes"),
    (33, bytes((10, 0, 0, 0, 192, 0, 2, 1)), "10.0.0.0 via 192.0.2.1"),
    (61, b"\1\x52\x54\0\x12\x34\x56", "Ethernet 52:54:00:12:34:56"),
    (61, bytes.fromhex("0033221100554477668899aabbccddeeff"), "UUID 00112233-4455-6677-8899-aabbccddeeff"),
    (61, bytes.fromhex("ff1234567800030001525400123456"), "IAID 12345678, DUID 00 03 00 01 52 54 00 12 34 56"),
    (61, b"\0host-7", "host-7"),
    (77, b"\4aaaa\2bb", "aaaa bb"),
    (81, b"\0\0\0pc.example", "pc.example, flags 0"),
    (81, b"\4\0\0\2pc\7example\0", "pc.example, flags 4"),
    (82, b"\1\4eth0\5\4\xc0\0\2\0", "circuit id eth0; link selection 192.0.2.0"),
    (94, b"\1\3\x10", "UNDI 3.16"),
    (94, b"\2\3\x10", "02 03 10"),
    (119, b"\3lab\7example\0\3sub\xc0\4", "lab.example, sub.example"),
    (119, b"\xc0\0", "c0 00"),
    (121, bytes.fromhex("080ac000020100c0000203"), "10.0.0.0/8 via 192.0.2.1, 0.0.0.0/0 via 192.0.2.3"),
    (121, b"\x21\1\2\3\4\5", "21 01 02 03 04 05"),
    (124, b"\0\0\1\x57\5hello", "enterprise 343: hello"),
    (175, IPXE_BIOS, "card PCI 1af4:1000; version 2.0.0; features dns http"),
    (43, b"\6\1\x08\xff", "discovery control 8 (boot the file at once)"),
    (43, b"\6\1\0", "discovery control 0 (any boot server)"),
    (43, b"\x0a\4\0PXE\x47\4\x80\1\0\2", 'menu prompt at once "PXE"; boot item type 32769, layer 2'),
    (43, b"\x08\7\x80\0\1\xc0\0\2\x10", "boot servers type 32768 192.0.2.16"),
    (43, b"\x09\7\x80\0\4Disk", 'boot menu type 32768 "Disk"'),
    (43, b"\x08\1\x80", "boot servers 80"),
    (43, b"\6\x09", "06 09"),
    (200, b"", "(empty)"),
])  # fmt: skip
def test_a_value_in_words(code: int, value: bytes, text: str) -> None:
    assert options.value_text(code, value) == text


def test_option_43_is_pxe_s_only_where_the_vendor_class_says_so() -> None:
    assert options.value_text(43, b"\6\1\x08", MICROSOFT) == "6 08"
    assert options.value_text(43, b"\6\1\x08", b"") == options.value_text(43, b"\6\1\x08", b"HTTPClient:Arch:00016")


def test_edk2_s_seconds_on_port_4011_have_their_octets_swapped() -> None:
    message = dhcp4.parse(vector("edk2-x64-discover")[:8] + b"\2\0" + vector("edk2-x64-discover")[10:])
    assert "secs 2 (octets swapped)" in options.described(message)


def test_any_octets_are_told_in_one_printable_line() -> None:
    draw = random.Random(4)
    for name in NAMES:
        for code, value in dhcp4.parse(vector(name)).options:
            assert options.value_text(code, value).isprintable()
    for _ in range(20_000):
        text = options.value_text(draw.randrange(1, 255), draw.randbytes(draw.choice((0, 1, 3, 4, 9, 40, 255, 600))))
        assert text.isprintable()
        assert 0 < len(text) < 2_000


@pytest.mark.parametrize(("code", "value", "text"), [
    (1, b"\0\4" + bytes(range(16)), "UUID 000102030405060708090a0b0c0d0e0f"),
    (1, b"\0\3\0\1\x52\x54\0\x12\x34\x56", "link-layer 52:54:00:12:34:56"),
    (2, b"\0\1\0\1\0\0\0\1\x52\x54\0\x12\x34\x56", "link-layer and time 52:54:00:12:34:56"),
    (2, b"\0\2\0\0\1\x37ab", "00 02 00 00 01 37 61 62"),
    (3, bytes(11), "00 00 00 00 00 00 00 00 00 00 00"),
    (8, b"\0\x64", "1000 ms"),
    (13, b"\0\0", "Success"),
    (13, b"\0\2none left", "NoAddrsAvail: none left"),
    (15, b"\0\4iPXE", "iPXE"),
    (16, b"\0\0\1\x57\0\x09PXEClient", "enterprise 343: PXEClient"),
    (17, b"\0\0\1\x37\xc3\x50\0\4boot", "enterprise 311; 50000 boot"),
    (17, b"\0\0\1\x37\xc3\x50\0\5boot", "00 00 01 37 c3 50 00 05 62 6f 6f 74"),
    (24, b"\3lab\7example\0", "lab.example"),
    (32, b"\0\0\x0e\x10", "3600 s"),
    (59, b"tftp://[2001:db8::1]/a.efi\0", "tftp://[2001:db8::1]/a.efi"),
    (60, b"\0\2-x\0\1y", "-x y"),
    (61, b"\0\7", "7 (UEFI x64)"),
    (62, b"\1\3\x10", "UNDI 3.16"),
    (200, b"", "(empty)"),
])  # fmt: skip
def test_a_dhcpv6_value_in_words(code: int, value: bytes, text: str) -> None:
    assert options6.value_text(code, value) == text


def test_any_dhcpv6_octets_are_told_in_one_printable_line() -> None:
    draw = random.Random(6)
    for _ in range(20_000):
        text = options6.value_text(draw.randrange(70), draw.randbytes(draw.choice((0, 1, 3, 4, 9, 40, 255, 600))))
        assert text.isprintable()
        assert 0 < len(text) <= 240
