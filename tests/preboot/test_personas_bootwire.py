"""Whole boots in virtual time: each firmware against our own server beside an ordinary DHCP server."""

from __future__ import annotations

import pytest

from bootwire.facts import Warned
from bootwire.policy.decide import Offerings
from bootwire.preboot.personas import bios, edk2, ipxe, uefi_http
from bootwire.preboot.personas.steps import Booted, Stopped
from bootwire.wire import dhcp4
from persona_lan import MAC, OURS, ROUTER, Bootwire, DhcpServer, pe, seconds

HERE = "52-54-00-12-34-56"


def booted(station) -> Booted:
    assert isinstance(station.outcome, Booted), (station.outcome, station.screen)
    return station.outcome


# --- the way each firmware goes ---------------------------------------------------------------------------------


def test_edk2_goes_to_port_4011_then_tftp_then_starts_the_kernel_with_our_command_line():
    server = Bootwire(initrds=(b"one", b"two"), cmdline="console=ttyS0")
    lan = server.lan(DhcpServer())
    outcome = booted(lan.boot(edk2.boot))
    assert outcome.cmdline == "initrd=initrd0 initrd=initrd1 console=ttyS0"
    assert [image.data for image in outcome.initrds] == [b"one", b"two"]
    assert outcome.kernel.data == server.kernel
    (asked,) = lan.sent(port=4011)
    assert (asked.source[1], asked.to[0]) == (4011, OURS)


def test_edk2_waits_its_slice_and_discovers_once():
    lan = Bootwire().lan(DhcpServer())
    booted(lan.boot(edk2.boot))
    firmware = [seen for seen in lan.sent() if not seen.message.option(dhcp4.USER_CLASS)]
    assert [seen.message.type for seen in firmware] == [dhcp4.DISCOVER, dhcp4.REQUEST_LEASE]
    assert seconds(firmware) == [0, 4]


def test_edk2_asks_for_the_size_first_and_fetches_the_loader_once():
    station = Bootwire().lan(DhcpServer()).boot(edk2.boot)
    loader = f"{HERE}/x86_64/snponly.efi"
    assert station.fetched[:3] == [f"TFTP {loader} (size)", f"TFTP {loader}", f"TFTP {HERE}/x86_64/autoexec.ipxe"]
    assert sum(loader in name and "size" not in name for name in station.fetched) == 1


@pytest.mark.parametrize("version", ["2.0.0", "1.0.0+git-20190125.36a4c85"])
@pytest.mark.parametrize(
    ("persona", "build", "loader"),
    [(edk2.boot, edk2.Build(7), "x86_64/snponly.efi"), (bios.boot, bios.Build(), "bios/undionly.kpxe")],
)
def test_no_machine_gets_the_same_loader_twice(persona, build, loader, version):
    server = Bootwire()
    lan = server.lan(DhcpServer())
    booted(lan.boot(persona, build=build, ipxe=version))
    assert list(dict.fromkeys(server.served)) == [loader]
    assert server.served.count(loader) == 2  # the size, then the file


def test_a_bios_rom_boots_without_port_4011():
    lan = Bootwire(cmdline="quiet splash").lan(DhcpServer())
    outcome = booted(lan.boot(bios.boot))
    assert outcome.cmdline.endswith("quiet splash")
    assert lan.sent(port=4011) == []


@pytest.mark.parametrize("build", [bios.Build(old=True), bios.Build(silent_uuid=True), bios.Build(runs_on=True)])
def test_old_roms_boot(build):
    booted(Bootwire().lan(DhcpServer()).boot(bios.boot, build=build))


def test_ipxe_in_the_rom_takes_its_script_at_once_and_no_loader():
    server = Bootwire()
    station = server.lan(DhcpServer()).boot(ipxe.rom)
    booted(station)
    assert server.served == []
    assert station.fetched[0].startswith("GET http://192.0.2.10/boot.ipxe?mac=52-54-00-12-34-56")


def test_ipxe_requests_its_address_as_soon_as_our_offer_is_there():
    lan = Bootwire().lan(DhcpServer())
    booted(lan.boot(ipxe.rom))
    assert seconds(lan.sent()) == [0, 0]
    assert lan.sent(port=4011) == []


def test_a_crippled_ipxe_rom_gets_a_full_one_once():
    server = Bootwire()
    rom = ipxe.build("pcbios", 0, "1.0.0+", features=(0x13, 0x15, 0x17, 0x21))
    lan = server.lan(DhcpServer())
    station = lan.boot(ipxe.rom, firmware=rom)
    assert server.served == ["bios/undionly.kpxe"], station.screen


def test_the_marker_is_fetched_last_and_is_no_initrd():
    station = Bootwire(initrds=(b"one",)).lan(DhcpServer()).boot(ipxe.rom)
    assert station.fetched[-1] == f"GET http://192.0.2.10/boot/{HERE}/started"
    assert [image.name for image in booted(station).initrds] == ["initrd0"]


# --- DHCP servers that interfere --------------------------------------------------------------------------------


def test_edk2_alone_with_a_dhcp_server_that_claims_pxe_cannot_be_helped_but_the_operator_is_told():
    # PxeBcHandleDhcp4Offer: a DhcpBinl offer is retried at its own sender, and no proxy is looked at.
    server = Bootwire()
    lan = server.lan(DhcpServer((60, b"PXEClient")))
    assert lan.boot(edk2.boot).outcome == Stopped("PXE-E16", "No valid offer received.")
    assert [seen.to[0] for seen in lan.sent(port=4011)] == [ROUTER] * 4
    (warned,) = (fact for fact in server.facts if isinstance(fact, Warned))
    assert "option 60" in warned.fix


def test_edk2_that_loses_offers_without_port_4011_boots():
    booted(Bootwire().lan(DhcpServer()).boot(edk2.boot, build=edk2.Build(loses_pxe10=True)))


def test_a_bios_rom_believes_a_dhcp_server_that_claims_pxe():
    # Microsoft KB 259670: a left-over option 60 sends the machine to a boot service that is not there.
    outcome = Bootwire().lan(DhcpServer((60, b"PXEClient"))).boot(bios.boot).outcome
    assert isinstance(outcome, Stopped)
    assert outcome.code == "PXE-E55"


def test_edk2_prefers_us_to_the_dhcp_servers_own_boot_file():
    booted(Bootwire().lan(DhcpServer(siaddr="192.0.2.99", file=b"other.efi")).boot(edk2.boot))


def test_no_loader_for_this_processor_leaves_the_firmware_without_an_offer():
    server = Bootwire(offerings=Offerings())
    assert server.lan(DhcpServer()).boot(edk2.boot).outcome == Stopped("PXE-E16", "No valid offer received.")


def test_firmware_that_never_takes_a_proxy_offer_gives_up_after_its_four_discovers():
    lan = Bootwire().lan(DhcpServer())
    station = lan.boot(edk2.boot, build=edk2.Build(blind_to_proxy=True))
    assert station.outcome == Stopped("PXE-E16", "No valid offer received.")
    assert seconds(lan.sent()) == [0, 4, 12, 28]


def test_port_4011_blocked_is_what_the_screen_says():
    server = Bootwire()
    server.deaf = True
    lan = server.lan(DhcpServer())
    assert lan.boot(edk2.boot).outcome == Stopped("PXE-E16", "No valid offer received.")
    assert seconds(lan.sent(port=4011)) == [0, 1, 3, 6]


def test_a_loader_for_another_processor_is_not_started():
    server = Bootwire()
    server.loaders["x86_64/snponly.efi"] = pe(0xAA64)
    outcome = server.lan(DhcpServer()).boot(edk2.boot).outcome
    assert isinstance(outcome, Stopped)
    assert "not an EFI program for this processor" in outcome.text


def test_machines_of_every_kind_boot_one_after_another():
    lan = Bootwire().lan(DhcpServer())
    for number in range(30):
        persona = (ipxe.rom, edk2.boot, bios.boot)[number % 3]
        booted(lan.boot(persona, mac=MAC[:4] + number.to_bytes(2, "big"), seed=number))


# --- UEFI HTTP Boot ---------------------------------------------------------------------------------------------


def test_uefi_http_boot_never_uses_port_4011_or_tftp():
    lan = Bootwire().lan(DhcpServer())
    station = lan.boot(uefi_http.boot)
    booted(station)
    assert lan.sent(port=4011) == []
    assert station.fetched[:2] == [
        f"HEAD http://{OURS}/boot/{HERE}/x86_64/snponly.efi",
        f"GET http://{OURS}/boot/{HERE}/x86_64/snponly.efi",
    ]


def test_uefi_http_boot_that_wants_https_says_so():
    station = Bootwire().lan(DhcpServer()).boot(uefi_http.boot, build=uefi_http.Build(allows_http=False))
    assert station.outcome == Stopped("", "Error: Access forbidden, only HTTPS connection is allowed.")


def test_an_http_client_ignores_pxe_offers():
    lan = Bootwire(offerings=Offerings()).lan(DhcpServer((60, b"PXEClient"), siaddr=OURS, file=b"x.efi"))
    assert lan.boot(uefi_http.boot).outcome == Stopped("", "Error: Server response timeout.")
