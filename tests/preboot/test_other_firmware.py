"""The other personas: PXELINUX, GRUB, U-Boot, Raspberry Pi, FreeBSD's loader, an ordinary host."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas import bios, edk2, freebsd, host, raspberry, syslinux, u_boot
from bootwire.preboot.personas.steps import Booted, Machine, Started, Stopped
from bootwire.wire import dhcp4
from dhcp_samples import vector
from persona_lan import OURS, Bootwire, DhcpServer, Lan, bzimage, pe, seconds

KERNEL = bzimage()
PXE, DIRECT = (60, b"PXEClient"), (43, b"\x06\x01\x08\xff")


def lan(*servers, **files: bytes) -> Lan:
    """files: names with "__" for "/" and "_" for "."."""
    made = Lan(*servers)
    named = {name.replace("__", "/"): data for name, data in files.items()}
    made.tftp = lambda name, peer: named.get(name.decode().replace(".", "_").replace("-", "_"))
    made.http = lambda url, peer: named.get(url.rsplit("/", 1)[-1], 404)
    return made


def booted(station) -> Booted:
    assert isinstance(station.outcome, Booted), (station.outcome, station.screen, station.fetched)
    return station.outcome


# --- PXELINUX ---------------------------------------------------------------------------------------------------

NBP = b"\xea" * 9000
CONFIG = b"""
DEFAULT live
PROMPT 0
LABEL other
  LOCALBOOT 0
label live
  MENU LABEL A live system
  kernel vmlinuz
  append initrd=one.gz,two.gz quiet ip=dhcp
"""


def pxelinux(config: bytes, name: str = "pxelinux.0", **files: bytes):
    server = DhcpServer(PXE, DIRECT, siaddr=OURS, file=f"dir/{name}".encode())
    images = {"dir__vmlinuz": KERNEL, "dir__one_gz": b"1", "dir__two_gz": b"2"}
    made = lan(
        server, **{"dir__" + name.replace(".", "_"): NBP, "dir__pxelinux_cfg__default": config},
        dir__ldlinux_c32=b"x", **images, **files,
    )  # fmt: skip
    return made.boot(bios.boot)


def test_pxelinux_looks_by_uuid_mac_address_and_default():
    station = pxelinux(CONFIG)
    names = [name.removeprefix("TFTP dir/pxelinux.cfg/") for name in station.fetched if "pxelinux.cfg" in name]
    assert names[:3] == ["03020100-0504-0706-0809-0a0b0c0d0e0f", "01-52-54-00-12-34-56", "C0000264"]
    assert names[3:] == ["C000026", "C00002", "C0000", "C000", "C00", "C0", "C", "default"]


def test_pxelinux_boots_the_default_label_with_its_initrds_in_order():
    outcome = booted(pxelinux(CONFIG))
    assert outcome.cmdline == "BOOT_IMAGE=vmlinuz initrd=one.gz,two.gz quiet ip=dhcp"
    assert [image.data for image in outcome.initrds] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("config", "cmdline"),
    [
        (b"append a\nlabel x\nlinux vmlinuz", "BOOT_IMAGE=vmlinuz a"),
        (b"append a\nlabel x\nlinux vmlinuz\nappend b", "BOOT_IMAGE=vmlinuz b"),
        (b"append a\nlabel x\nlinux vmlinuz\nappend -", "BOOT_IMAGE=vmlinuz"),
        (b"label x\nlocalboot 0\nlabel y\nmenu default\nlinux vmlinuz", "BOOT_IMAGE=vmlinuz"),
        (b"include sub\nmenu title X", "BOOT_IMAGE=vmlinuz s"),
        (b"DEFAULT x\nLABEL x\nLINUX /dir/vmlinuz", "BOOT_IMAGE=/dir/vmlinuz"),
        (b"DEFAULT x\nLABEL x\nLINUX 192.0.2.10::dir/vmlinuz", "BOOT_IMAGE=192.0.2.10::dir/vmlinuz"),
    ],
)
def test_pxelinux_configurations(config, cmdline):
    assert booted(pxelinux(config, dir__sub=b"label s\nlinux vmlinuz\nappend s")).cmdline == cmdline


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (b"default x\nlabel x\nlocalboot 0", "Booting from local disk..."),
        (b"", "No DEFAULT or UI configuration directive found!"),
        (b"label x\nlinux missing", "Loading missing... failed: No such file or directory"),
        (b"label x\nlinux http://h/k", "Loading http://h/k... failed: No such file or directory"),
    ],
)  # fmt: skip
def test_pxelinux_that_boots_nothing(config, text):
    assert pxelinux(config).outcome == Stopped("", text)


def test_lpxelinux_takes_urls():
    config = b"label x\nlinux http://192.0.2.10/vmlinuz"
    assert booted(pxelinux(config, "lpxelinux.0", vmlinuz=KERNEL)).kernel.octets == len(KERNEL)


def test_pxelinux_reports_what_it_does_not_understand():
    assert "not understood: frobnicate 3" in pxelinux(b"frobnicate 3\n" + CONFIG).screen


def test_the_address_search_shortens_to_one_digit():
    assert syslinux.addresses("192.168.1.2") == [
        "C0A80102", "C0A8010", "C0A801", "C0A80", "C0A8", "C0A", "C0", "C",
    ]  # fmt: skip


# --- GRUB -------------------------------------------------------------------------------------------------------

GRUB_CFG = b"""
set timeout=5
set default=1
menuentry "Local" { exit }
menuentry 'Live system' --class x {
  linux (http,192.0.2.10)/vmlinuz root=$root quiet
  initrd /one.gz /two.gz
}
"""


def grub(config: bytes, **server: object):
    dhcp_server = DhcpServer(PXE, DIRECT, **{"siaddr": OURS, "file": b"debian/grubnetx64.efi", **server})
    made = lan(
        dhcp_server, debian__grubnetx64_efi=pe(), debian__grub__grub_cfg=config,
        vmlinuz=KERNEL, one_gz=b"1", two_gz=b"2",
    )  # fmt: skip
    return made.boot(edk2.boot)


def test_grub_boots_the_default_entry():
    outcome = booted(grub(GRUB_CFG.replace(b"$root", b"x")))
    assert outcome.cmdline == "BOOT_IMAGE=(http,192.0.2.10)/vmlinuz root=x quiet"
    assert [image.data for image in outcome.initrds] == [b"1", b"2"]


def test_grub_looks_by_mac_and_address_first():
    names = [name.rpartition("/")[2] for name in grub(GRUB_CFG).fetched if "grub.cfg" in name]
    assert names[1:3] == ["grub.cfg-01-52-54-00-12-34-56", "grub.cfg-C0000264"]


def test_grub_knows_nothing_of_a_proxy():
    # efinet.c reads the firmware's DHCPACK alone.
    server = Bootwire()
    made = server.lan(DhcpServer())
    server.loaders["x86_64/snponly.efi"] = pe()
    station = made.boot(edk2.boot)
    assert booted(station)  # iPXE does not mind
    proxied = Lan(DhcpServer(), grub_proxy)
    proxied.tftp = lambda name, peer: pe() if name == b"grubx64.efi" else None
    assert proxied.boot(edk2.boot).outcome == Stopped("", "error: no server is specified.")


def grub_proxy(seen):
    if seen.to[1] == 67 and seen.message.type == dhcp4.DISCOVER:
        carried = ((53, b"\x02"), (54, dhcp4.packed(OURS)), PXE, DIRECT)
        message = replace(seen.message, op=2, siaddr=OURS, file=b"grubx64.efi", options=carried)
        yield (OURS, 67), ("255.255.255.255", 68), dhcp4.emit(message)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (b"menuentry x {\nlinux /missing\n}", "error: file `/missing' not found."),
        (b"menuentry x {\ninitrd /one.gz\n}", "error: you need to load the kernel first."),
        (b"menuentry x {\nlinux /one.gz\n}", "error: invalid magic number."),
        (b"set x=1", "grub> (a configuration without a menu entry)"),
    ],
)
def test_grub_that_boots_nothing(config, text):
    assert grub(config).outcome == Stopped("", text)


# --- U-Boot -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "build"), [("u-boot-arm64-discover", u_boot.Build()), ("u-boot-efi-arm64-discover", u_boot.EFI)]
)
def test_u_boots_discover(name, build):
    assert u_boot.options(build, dhcp.Ask(dhcp4.DISCOVER, 0, 0)) == dhcp4.parse(vector(name)).options


def test_u_boot_reads_pxelinux_files():
    made = lan(DhcpServer(siaddr=OURS, file=b"dir/x"), dir__pxelinux_cfg__default_arm=CONFIG, dir__vmlinuz=KERNEL,
               dir__one_gz=b"1", dir__two_gz=b"2")  # fmt: skip
    station = made.boot(u_boot.boot)
    assert booted(station).cmdline.endswith("quiet ip=dhcp")
    assert station.fetched[0] == "TFTP dir/pxelinux.cfg/01-52-54-00-12-34-56"


def test_u_boots_efi_method_starts_the_boot_file():
    made = lan(DhcpServer(siaddr=OURS, file=b"bootaa64.efi"), bootaa64_efi=pe(0xAA64))
    assert isinstance(made.boot(u_boot.boot, build=u_boot.EFI).outcome, Started)


def test_u_boot_gets_silence_from_us_and_nothing_from_a_plain_dhcp_server():
    server = Bootwire()
    made = server.lan(DhcpServer())
    assert made.boot(u_boot.boot).outcome == Stopped("", "*** ERROR: `serverip' not set")
    assert not [seen for seen in made.wire if seen.source[0] == OURS]


# --- Raspberry Pi -----------------------------------------------------------------------------------------------

PI4 = {
    "12345678__start4_elf": b"x",
    "12345678__config_txt": b"kernel=k8.img\n[none]\nkernel=no\n[all]\ninitramfs i.gz followkernel\n",
    "12345678__cmdline_txt": b"console=serial0 rootwait\n", "12345678__k8_img": b"arm", "12345678__i_gz": b"rd",
}  # fmt: skip


def pi_lan(**files: bytes) -> tuple[Bootwire, Lan]:
    from bootwire.policy.decide import Offerings

    server = Bootwire(offerings=Offerings(raspberry=True))
    made = server.lan(DhcpServer())
    named = {name.replace("__", "/"): data for name, data in files.items()}
    made.tftp = lambda name, peer: named.get(name.decode().replace(".", "_"))
    return server, made


def test_a_raspberry_pi_4_takes_our_offer_and_boots_from_its_serial_numbers_directory():
    _, made = pi_lan(**PI4)
    outcome = booted(made.boot(raspberry.boot))
    assert (outcome.cmdline, outcome.kernel.name, len(outcome.initrds)) == ("console=serial0 rootwait", "k8.img", 1)


def test_a_raspberry_pi_3_never_requests_its_address():
    _, made = pi_lan(bootcode_bin=b"x", start_elf=b"x", kernel8_img=b"arm")
    booted(made.boot(raspberry.boot, build=raspberry.Build(3)))
    assert [seen.message.type for seen in made.sent()] == [dhcp4.DISCOVER]


def test_a_raspberry_pi_without_its_menu_text_waits():
    made = lan(DhcpServer(siaddr=OURS))
    assert isinstance(made.boot(raspberry.boot, build=raspberry.Build(3)).outcome, Stopped)
    assert seconds(made.sent()) == [0, 5, 10, 15, 20]


def test_the_discover_of_a_raspberry_pi_3():
    seen = dhcp4.parse(vector("raspberry-pi3-discover"))
    machine = Machine(seen.chaddr[:6], b"", random.Random(1))
    assert raspberry.options(machine, raspberry.Build(3), dhcp.Ask(dhcp4.DISCOVER, 0, 0)) == seen.options


# --- FreeBSD ----------------------------------------------------------------------------------------------------


def test_the_discover_of_freebsds_loader():
    assert freebsd.options(dhcp.Ask(dhcp4.DISCOVER, 0, 0)) == dhcp4.parse(vector("freebsd-loader-discover")).options


def test_freebsds_loader_takes_no_harm_from_us():
    # It would take a ProxyDHCP offer for an address (bootprecv): we must be silent.
    server = Bootwire()
    made = server.lan(DhcpServer((17, b"tftp://192.0.2.10/fbsd")))
    conf = b'mfsroot_load="YES"\nmfsroot_type="md"\nmfsroot_name="/boot/mfsroot"\nif_x_load="YES"\n'
    files = {
        b"/fbsd/boot/kernel/kernel.gz": b"elf", b"/fbsd/boot/loader.conf": conf,
        b"/fbsd/boot/kernel/if_x.ko": b"ko", b"/fbsd/boot/mfsroot": b"md",
    }  # fmt: skip
    made.tftp = lambda name, peer: files.get(name)
    outcome = booted(made.boot(freebsd.boot))
    assert [image.name for image in outcome.initrds] == ["boot/kernel/if_x.ko", "boot/mfsroot"]
    assert outcome.kernel.name == "boot/kernel/kernel.gz"


def test_freebsd_over_nfs_is_said_so():
    outcome = lan(DhcpServer((17, b"192.0.2.10:/fbsd"))).boot(freebsd.boot).outcome
    assert isinstance(outcome, Stopped)
    assert "over NFS from 192.0.2.10:/fbsd" in outcome.text


# --- an ordinary host -------------------------------------------------------------------------------------------


def test_an_ordinary_host_gets_its_address_and_no_word_from_us():
    server = Bootwire()
    made = server.lan(DhcpServer())
    assert made.boot(host.boot).outcome == Stopped("", "bound to 192.0.2.100")
    assert not [seen for seen in made.wire if seen.source[0] == OURS]
