"""Each firmware persona over real sockets: from Bootwire, and from dnsmasq as an independent server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import product
from bootwire.preboot.personas import bios, edk2, freebsd, host, ipxe, raspberry, u_boot, uefi_http
from bootwire.preboot.personas.steps import Booted, Stopped
from bootwire.serve.personas import Station
from firmware_lan import BOOTWIRE, DHCP, FirmwareLan, machine
from persona_lan import bzimage, pe

pytestmark = pytest.mark.interop

RANGE = "--dhcp-range=10.9.0.100,10.9.0.200,255.255.255.0,1h"
CMDLINE = "console=ttyS0 one=two"
BIOS_LOADER = b"\xea" * 70_000


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[FirmwareLan]:
    made = FirmwareLan(tmp_path)
    try:
        yield made
    finally:
        made.close()


def write(folder: Path, **files: bytes) -> Path:
    """Files with "__" for "/"."""
    for name, data in files.items():
        path = folder / name.replace("__", "/").replace("DOT", ".").replace("DASH", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def booted(station: Station) -> Booted:
    assert isinstance(station.outcome, Booted), (station.outcome, station.screen, station.files)
    return station.outcome


# --- from Bootwire, with loaders and files of its own ----------------------------------------------------------

PXELINUX = b"default x\nlabel x\nkernel vmlinuz\nappend initrd=initrd console=ttyS0 one=two\n"
GRUB = b"menuentry x {\nlinux /vmlinuz console=ttyS0 one=two\ninitrd /initrd\n}\n"
FILES = {
    "vmlinuz": bzimage(), "initrd": b"070701" + bytes(5000),
    "pxelinuxDOT0": BIOS_LOADER, "ldlinuxDOTc32": b"x", "pxelinuxDOTcfg__default": PXELINUX,
    "grubnetx64DOTefi": pe(), "grub__grubDOTcfg": GRUB,
    "startDOTelf": b"x", "start4DOTelf": b"x", "bootcodeDOTbin": b"x",
    "configDOTtxt": b"kernel=vmlinuz\ninitramfs initrd\n",
    "cmdlineDOTtxt": CMDLINE.encode() + b"\n",
    "fbsd__boot__kernel__kernel": bzimage(),
    "fbsd__boot__loaderDOTconf": b'rd_load="YES"\nrd_type="md"\nrd_name="/rd"\n',
    "fbsd__rd": b"md",
}  # fmt: skip

TFTP_HERE = f"--dhcp-boot={{}},,{BOOTWIRE}"


@pytest.mark.parametrize(
    ("persona", "dnsmasq", "mode"),
    [
        (raspberry.boot, (), "proxy"),
        (lambda m: raspberry.boot(m, raspberry.Build(3)), (), "proxy"),
        (u_boot.boot, (TFTP_HERE.format("x"),), "proxy"),
        (bios.boot, (TFTP_HERE.format("pxelinux.0"), "--dhcp-option=vendor:PXEClient,6,8b"), "off"),
        (edk2.boot, (TFTP_HERE.format("grubnetx64.efi"),), "off"),
    ],
    ids=["raspberry-4", "raspberry-3", "u-boot", "pxelinux", "grub"],
)
def test_firmware_that_fetches_published_files(lan, tmp_path, persona, dnsmasq, mode):
    folder = write(tmp_path / "files", **FILES)
    lan.dnsmasq(RANGE, *dnsmasq)
    lan.serve(product.bzimage(tmp_path / "k"), "--files", str(folder), "--mode", mode)
    outcome = booted(lan.boot(persona(of := machine()), of))
    assert outcome.cmdline.endswith(CMDLINE)
    assert outcome.kernel.octets == len(FILES["vmlinuz"])
    assert [image.octets for image in outcome.initrds] == [len(FILES["initrd"])]


def test_freebsds_loader_is_left_alone_and_served(lan, tmp_path):
    folder = write(tmp_path / "files", **FILES)
    lan.dnsmasq(RANGE, f"--dhcp-option=17,tftp://{BOOTWIRE}/fbsd")
    server = lan.serve(product.bzimage(tmp_path / "k"), "--files", str(folder))
    of = machine()
    outcome = booted(lan.boot(freebsd.boot(of), of))
    assert [image.name for image in (outcome.kernel, *outcome.initrds)] == ["boot/kernel/kernel", "rd"]
    assert not [fact for fact in server.facts if fact["kind"] == "offer"]


def test_an_ordinary_host_gets_its_address_and_no_word_from_us(lan, tmp_path):
    lan.dnsmasq(RANGE)
    server = lan.serve(product.bzimage(tmp_path / "k"))
    of = machine()
    outcome = lan.boot(host.boot(of), of).outcome
    assert isinstance(outcome, Stopped)
    assert outcome.text.startswith("bound to 10.9.0.1")
    assert not [fact for fact in server.facts if fact["kind"] == "offer"]


# --- from dnsmasq ----------------------------------------------------------------------------------------------

SCRIPT = f"""#!ipxe
kernel tftp://{DHCP}/vmlinuz {CMDLINE}
initrd tftp://{DHCP}/initrd
boot
""".encode()


def tftp_root(folder: Path) -> Path:
    return write(folder, bootDOTipxe=SCRIPT, snponlyDOTefi=pe(), undionlyDOTkpxe=BIOS_LOADER,
                 vmlinuz=FILES["vmlinuz"], initrd=FILES["initrd"])  # fmt: skip


WHO = (
    "--dhcp-match=set:ipxe,175",
    "--dhcp-match=set:efi,option:client-arch,7",
    "--dhcp-match=set:bios,option:client-arch,0",
)
NAMED = (
    "--dhcp-boot=tag:ipxe,boot.ipxe",
    "--dhcp-boot=tag:!ipxe,tag:efi,snponly.efi",
    "--dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe",
)
SERVICES = (
    "--pxe-prompt=Booting,0",
    "--pxe-service=tag:ipxe,x86PC,Script,boot.ipxe", "--pxe-service=tag:ipxe,X86-64_EFI,Script,boot.ipxe",
    "--pxe-service=tag:!ipxe,x86PC,iPXE,undionly.kpxe", "--pxe-service=tag:!ipxe,X86-64_EFI,iPXE,snponly.efi",
)  # fmt: skip
FIRMWARE = {"bios": bios.boot, "edk2": edk2.boot, "ipxe": ipxe.rom}


@pytest.mark.parametrize("firmware", FIRMWARE)
def test_boots_from_dnsmasq_as_dhcp_server_with_boot_files(lan, tmp_path, firmware):
    lan.dnsmasq(RANGE, *WHO, *NAMED, "--enable-tftp", f"--tftp-root={tftp_root(tmp_path / 'tftp')}")
    of = machine()
    assert booted(lan.boot(FIRMWARE[firmware](of), of)).cmdline.endswith(CMDLINE)


@pytest.mark.parametrize("firmware", FIRMWARE)
def test_boots_from_dnsmasq_as_proxy_beside_another_dhcp_server(lan, tmp_path, firmware):
    lan.dnsmasq(RANGE, space=lan.bootwire)
    root = tftp_root(tmp_path / "tftp")
    lan.dnsmasq("--dhcp-range=10.9.0.0,proxy", *WHO, *SERVICES, "--enable-tftp", f"--tftp-root={root}")
    of = machine()
    assert booted(lan.boot(FIRMWARE[firmware](of), of)).cmdline.endswith(CMDLINE)


def test_uefi_http_boot_from_dnsmasq(lan, tmp_path):
    lan.dnsmasq(
        RANGE, "--dhcp-vendorclass=set:http,HTTPClient", "--dhcp-option-force=tag:http,60,HTTPClient",
        f"--dhcp-boot=tag:http,http://{BOOTWIRE}/files/snponly.efi",
    )  # fmt: skip
    lan.serve(product.bzimage(tmp_path / "k"), "--mode", "off", "--files", str(tftp_root(tmp_path / "tftp")))
    of = machine()
    station = lan.boot(uefi_http.boot(of), of)
    assert [(file.name, file.octets) for file in station.files][:1] == [("/files/snponly.efi", len(pe()))]


# --- over our own TCP/IP on a card of our own --------------------------------------------------------------------


def client(lan: FirmwareLan, firmware: str, *then: str) -> tuple[int, str]:
    """Status and screen of `bootwire boot-client`."""
    process = product.Server(lan.machine, "--nic", "w1", "--as", firmware, *then, verb="boot-client")
    status, trouble = process.wait()
    return status, "\n".join(process.out.all()) + trouble


@pytest.mark.parametrize("firmware", ["bios", "ipxe"])
def test_boot_client_is_that_firmware_on_its_own_card(lan, tmp_path, firmware):
    root, out = tftp_root(tmp_path / "tftp"), tmp_path / "out"
    product.bzimage(root / "vmlinuz")
    lan.dnsmasq(RANGE, *WHO, *NAMED, "--enable-tftp", f"--tftp-root={root}")
    status, said = client(lan, firmware, "--then", "save", "-o", str(out))
    assert status == 0, said
    assert (out / "cmdline").read_text().endswith(CMDLINE + "\n")
    assert (out / "kernel").read_bytes() == (root / "vmlinuz").read_bytes()
    assert (out / "initrd").read_bytes().startswith(FILES["initrd"])


def test_boot_client_boots_from_bootwire(lan, tmp_path):
    lan.dnsmasq(RANGE)
    lan.serve(product.bzimage(tmp_path / "k"), "--cmdline", CMDLINE)
    status, said = client(lan, "ipxe")
    assert (status, f"{CMDLINE}\n" in said + "\n") == (0, True), said
    assert f"http://{BOOTWIRE}/boot/" in said


def test_boot_client_fails_with_what_the_firmware_says(lan):
    lan.dnsmasq(RANGE)
    status, said = client(lan, "ipxe")
    assert status == 1
    assert "poweron: " in said
