"""What one message says about its sender: every kind of client, every architecture, and the oddities."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from bootwire.policy import quirks
from bootwire.policy.client import ARCHITECTURES, Client, Kind, classify
from dhcp_samples import NAMES, changed, messages


def client(name: str, **options: bytes | None) -> Client:
    return classify(changed(name, **options))


def architecture(number: int, vendor: bytes = b"PXEClient") -> Client:
    text = b"%s:Arch:%05d:UNDI:003000" % (vendor, number)
    return client("edk2-x64-discover", o93=number.to_bytes(2, "big"), o60=text)


# --- kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "summary"),
    [
        ("intel-bios-discover", Kind.PXE, "BIOS"),
        ("intel-bios-no-machine-id-discover", Kind.PXE, "BIOS"),
        ("edk2-x64-discover", Kind.PXE, "UEFI x64"),
        ("edk2-arm64-discover", Kind.PXE, "UEFI arm64"),
        ("edk2-x64-relayed-discover", Kind.PXE, "UEFI x64"),
        ("edk2-guid-as-chaddr-discover", Kind.PXE, "UEFI x64"),
        ("edk2-http-x64-discover", Kind.HTTP, "UEFI HTTP x64"),
        ("overload-discover", Kind.PXE, "UEFI x64"),
        ("ipxe-bios-discover", Kind.IPXE, "iPXE 1.21.1 BIOS (http, bzImage)"),
        ("ipxe-efi-x64-discover", Kind.IPXE, "iPXE 2.0.0 UEFI x64 (http, efi)"),
        ("ipxe-crippled-discover", Kind.IPXE, "iPXE 1.0.0 BIOS (no http, no bzImage)"),
        ("ipxe-boot-item-request", Kind.IPXE, "iPXE 1.21.1 BIOS (http, bzImage)"),
        ("raspberry-pi3-discover", Kind.RASPBERRY_PI, "Raspberry Pi boot ROM"),
        ("raspberry-pi4-discover", Kind.RASPBERRY_PI, "Raspberry Pi boot ROM"),
        ("u-boot-arm64-discover", Kind.U_BOOT, "U-Boot arm64"),
        ("u-boot-efi-arm64-discover", Kind.U_BOOT, "U-Boot UEFI arm64"),
        ("freebsd-loader-discover", Kind.FREEBSD, "FreeBSD loader"),
        ("bsdp-inform", Kind.BSDP, "Apple NetBoot"),
        ("dhclient-discover", Kind.HOST, "ordinary host"),
        ("bootp-request", Kind.BOOTP, "BOOTP client"),
    ],
)
def test_the_kind_of_client(name, kind, summary):
    found = client(name)
    assert (found.kind, found.summary) == (kind, summary)


PXE = {
    0: ("bios", "BIOS"), 6: ("i386", "UEFI ia32"), 7: ("x86_64", "UEFI x64"), 9: ("x86_64", "UEFI x64"),
    10: ("arm32", "UEFI arm32"), 11: ("arm64", "UEFI arm64"), 25: ("riscv32", "UEFI riscv32"),
    27: ("riscv64", "UEFI riscv64"), 39: ("loong64", "UEFI loong64"),
}  # fmt: skip
HTTP = {
    15: ("i386", "UEFI HTTP ia32"), 16: ("x86_64", "UEFI HTTP x64"), 17: ("x86_64", "UEFI HTTP x64"),
    18: ("arm32", "UEFI HTTP arm32"), 19: ("arm64", "UEFI HTTP arm64"), 20: ("bios", "BIOS HTTP"),
    26: ("riscv32", "UEFI HTTP riscv32"), 28: ("riscv64", "UEFI HTTP riscv64"), 40: ("loong64", "UEFI HTTP loong64"),
}  # fmt: skip


@pytest.mark.parametrize("number", PXE)
def test_architectures_of_pxe_firmware(number):
    found = architecture(number)
    assert (found.kind, found.platforms, found.summary) == (Kind.PXE, (PXE[number][0],), PXE[number][1])


@pytest.mark.parametrize("number", HTTP)
def test_architectures_of_http_firmware(number):
    found = architecture(number, b"HTTPClient")
    assert (found.kind, found.platforms, found.summary) == (Kind.HTTP, (HTTP[number][0],), HTTP[number][1])
    assert found.vendor == b"HTTPClient"


@pytest.mark.parametrize("number", [1, 3, 12, 29, 33, 37, 42, 0xFFFF])
def test_architectures_without_any_loader_have_no_platform(number):
    assert architecture(number).platforms == ()


def test_an_unknown_architecture_is_called_by_its_number():
    assert architecture(4711).summary == "architecture 4711"


def test_an_http_client_with_a_pxe_number_is_an_http_client():
    assert architecture(7, b"HTTPClient").summary == "UEFI x64 over HTTP"


@pytest.mark.parametrize("number", [21, 22, 23, 24])
def test_u_boot_numbers_are_u_boot(number):
    assert architecture(number).kind is Kind.U_BOOT


@pytest.mark.parametrize("number", [13, 14])
def test_petitboot_says_nothing_but_its_number(number):
    assert client("dhclient-discover", o93=number.to_bytes(2, "big")).kind is Kind.PETITBOOT


def test_several_architectures_keep_their_order():
    found = client("edk2-x64-discover", o93=b"\xff\xfe\0\x0b\0\7\0\x09")
    assert found.architectures == (0xFFFE, 11, 7, 9)
    assert found.platforms == ("arm64", "x86_64")
    assert (found.architecture, found.summary) == (11, "UEFI arm64")


@pytest.mark.parametrize("name", ["edk2-x64-discover", "edk2-http-x64-discover"])
def test_without_option_93_a_netboot_client_is_nobody_we_know(name):
    assert client(name, o93=None).kind is Kind.NAMELESS


# --- iPXE -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_class", [b"iPXE", b"\x04iPXE", b"gPXE", b"\x03foo\x04iPXE"])
def test_user_class_raw_or_rfc_3004_says_ipxe(user_class):
    assert client("ipxe-bios-discover", o77=user_class).kind is Kind.IPXE


def test_ipxe_on_a_raspberry_pi_is_ipxe():
    message = replace(changed("ipxe-efi-x64-discover"), chaddr=bytes.fromhex("b827eb123456") + bytes(10))
    assert classify(message).kind is Kind.IPXE


def test_ipxe_without_option_175_has_no_known_features():
    found = client("ipxe-bios-discover", o175=None)
    assert not found.knows_features
    assert found.summary == "iPXE BIOS"


def test_a_broken_option_175_is_no_features():
    found = client("ipxe-bios-discover", o175=b"\x13\x09\x01")
    assert (found.knows_features, found.features) == (True, frozenset())


# --- look-alikes ------------------------------------------------------------------------------------------------


def test_bios_with_a_raspberry_mac_is_a_raspberry():
    message = replace(changed("intel-bios-discover"), chaddr=bytes.fromhex("e45f01123456") + bytes(10))
    assert classify(message).kind is Kind.RASPBERRY_PI


def test_uefi_on_a_raspberry_is_uefi():
    message = replace(changed("edk2-arm64-discover"), chaddr=bytes.fromhex("dca632123456") + bytes(10))
    assert classify(message).kind is Kind.PXE


def test_edk2_that_asks_for_option_209_is_still_edk2():
    assert client("edk2-arm64-discover", o55=b"\x01\xd1").kind is Kind.PXE


def test_huawei_is_answered_in_its_own_vendor_class():
    found = client("intel-bios-discover", o60=b"HW-Client:Arch:00000")
    assert (found.kind, found.vendor) == (Kind.PXE, b"HW-Client")


# --- quirks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "quirk"),
    [
        ("intel-bios-no-machine-id-discover", {}, quirks.NO_MACHINE_ID),
        ("edk2-x64-discover", {"o97": b"\0abc"}, quirks.ODD_MACHINE_ID),
        ("edk2-x64-discover", {"o97": b"\xff" * 17}, quirks.ODD_MACHINE_ID),
        ("edk2-x64-discover", {"o93": b"\0\x09"}, quirks.ARCH_9_IS_X64),
        ("edk2-x64-discover", {"o93": b"\0\x02"}, quirks.ARCH_2_IS_IA32),
        ("edk2-x64-discover", {"o93": b"\0\x05"}, quirks.ARCH_4_IS_BIOS),
        ("edk2-x64-discover", {"o93": b"\0\x0b"}, quirks.ARCH_DISAGREES),
        ("edk2-x64-discover", {"o60": b"HW-Client"}, quirks.HUAWEI_VENDOR),
        ("edk2-guid-as-chaddr-discover", {}, quirks.GUID_ADDRESS),
        ("u-boot-efi-arm64-discover", {}, quirks.POSES_AS_UEFI),
    ],
)
def test_a_quirk_is_seen(name, options, quirk):
    assert quirk in client(name, **options).quirks


@pytest.mark.parametrize("name", ["intel-bios-discover", "edk2-x64-discover", "edk2-http-x64-discover"])
def test_firmware_by_the_book_shows_no_quirk(name):
    assert client(name).quirks == ()


def test_every_quirk_says_who_was_seen_and_what_we_do():
    assert len({quirk.name for quirk in quirks.QUIRKS}) == len(quirks.QUIRKS)
    for quirk in quirks.QUIRKS:
        assert quirk.does
        assert quirk.answer
        assert quirk.seen


# --- anything at all --------------------------------------------------------------------------------------------


@given(messages())
def test_every_message_is_some_client(message):
    found = classify(message)
    assert found.summary
    assert found.summary.isprintable()
    assert len(found.vendor_class) <= 256
    assert set(found.platforms) <= {platform for platform, _ in ARCHITECTURES.values()} - {""}


@pytest.mark.parametrize("name", NAMES)
def test_control_characters_never_come_through(name):
    found = client(name, o60=b"PXEClient\n\x1b[2J\x00\xe2\x80\xae", o77=b"iPXE\r\n")
    assert f"{found.vendor_class}{found.user_class}{found.summary}".isprintable()
