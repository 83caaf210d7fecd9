"""EDK2 persona: which offers it sees, which it takes, and the message it ends with."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bootwire.engine import dhcp_client as dhcp
from bootwire.policy import offers
from bootwire.preboot.personas import edk2, uefi_http
from bootwire.preboot.personas.steps import Machine, Stopped
from bootwire.wire import dhcp4
from dhcp_samples import vector
from persona_lan import OURS, ROUTER, DhcpServer, Lan, pe

BASE = replace(dhcp.request(bytes(6), 1, ()), op=2)
PXE, DIRECT = (60, b"PXEClient"), (43, b"\x06\x01\x08\xff")


def offer(*options: tuple[int, bytes], address: str = "0.0.0.0", server: str = OURS, file: bytes = b"") -> dhcp.Heard:
    carried = ((53, b"\x02"), (54, dhcp4.packed(server)), *options)
    return dhcp.Heard(replace(BASE, yiaddr=address, siaddr=server, file=file, options=carried), server, 67)


LEASE = {"address": "192.0.2.50", "server": ROUTER}


@pytest.mark.parametrize(
    ("heard", "kind"),
    [
        (offer(**LEASE), "DhcpOnly"),
        (offer(PXE, DIRECT, **LEASE), "DhcpPxe10"),
        (offer(PXE, (43, b"\1\4\0\0\0\0\2\2\0\0\3\2\0\0\4\1\0\5\1\0\xff"), **LEASE), "DhcpWfm11a"),
        (offer(PXE, **LEASE), "DhcpBinl"),
        (offer(PXE, DIRECT), "ProxyPxe10"),
        (offer(PXE), "ProxyBinl"),
        (offer(PXE, (43, b"garbage that runs past its end")), "ProxyBinl"),
        (offer(), ""),
        (offer((60, b"HTTPClient")), ""),
    ],
)
def test_the_class_of_an_offer(heard, kind):
    assert offers.kind(heard.message) == kind


PLAIN, FILED = offer(**LEASE), offer(**LEASE, file=b"x.efi")
BINL_DHCP, PXE_DHCP = offer(PXE, **LEASE), offer(PXE, DIRECT, **LEASE, file=b"x.efi")
BINL, PROXY = offer(PXE), offer(PXE, DIRECT, file=b"y.efi")


@pytest.mark.parametrize(
    ("heard", "taken"),
    [
        ([], None),
        ([PLAIN], None),
        ([BINL], None),
        ([PROXY], None),
        ([FILED], dhcp.Choice(FILED)),
        ([PLAIN, FILED], dhcp.Choice(FILED)),
        ([PLAIN, BINL], dhcp.Choice(PLAIN, BINL)),
        ([BINL, PLAIN], dhcp.Choice(PLAIN, BINL)),
        ([PLAIN, BINL, PROXY], dhcp.Choice(PLAIN, PROXY)),
        ([FILED, PROXY], dhcp.Choice(FILED, PROXY)),
        ([PLAIN, BINL_DHCP, BINL], dhcp.Choice(BINL_DHCP)),
        ([PLAIN, BINL_DHCP, PROXY], dhcp.Choice(PLAIN, PROXY)),
        ([PROXY, PLAIN, PXE_DHCP], dhcp.Choice(PXE_DHCP)),
        ([BINL_DHCP, PROXY], dhcp.Choice(BINL_DHCP)),
    ],
)
def test_which_offers_are_taken(heard, taken):
    assert edk2.select(heard) == taken


@pytest.mark.parametrize(
    ("tail", "because"),
    [
        (b"\x35\x01\x02\xff", ""),
        (b"\x35\x01\x02", "no END option"),
        (b"\x35\x01\x02\x0c\x00\xff", "option 12 of length 0"),
        (b"\x35\x01\x02\x03\x05\1\2\3\4\5\xff", "option 3 of length 5"),
        (b"\x35\x01\x02\x0c\x20abc", "option 12 of length 32"),
        (b"\x35\x01\x02\xff".ljust(1300, b"\0"), "1540 octets, 1472 at most"),
    ],
)
def test_messages_that_the_firmware_drops_without_a_word(tail, because):
    assert edk2.refuses(bytes(240) + tail) == because


def test_its_discover_is_what_ovmf_sends():
    seen = dhcp4.parse(vector("edk2-x64-discover"))
    machine = Machine(seen.chaddr[:6], (seen.option(97) or b"")[1:], random.Random(1))
    carried = edk2.options(machine, edk2.Build(7), dhcp.Ask(dhcp4.DISCOVER, 0, 0))
    assert carried == seen.options


# --- how it ends ------------------------------------------------------------------------------------------------


def proxy(*options: tuple[int, bytes], file: bytes = b""):
    """A ProxyDHCP server of somebody else's: one offer, nothing on port 4011."""

    def serve(seen):
        if seen.to[1] == 67 and seen.message.type == dhcp4.DISCOVER:
            carried = ((53, b"\x02"), (54, dhcp4.packed(OURS)), *options)
            message = replace(seen.message, op=2, siaddr=OURS, file=file, options=carried, flags=0x8000)
            yield (OURS, 67), ("255.255.255.255", 68), dhcp4.emit(message)

    return serve


def end(*servers, **build) -> Stopped:
    lan = Lan(*servers)
    lan.tftp = lambda name, peer: pe() if name == b"there.efi" else None
    outcome = lan.boot(edk2.boot, **build).outcome
    assert isinstance(outcome, Stopped)
    return outcome


MENU = b"\x06\x01\x03\x08\x07\x80\x00\x01\xc0\x00\x02\x0a\x09\x05\x80\x00\x02hi\x0a\x02\x00P\xff"


@pytest.mark.parametrize(
    ("servers", "code"),
    [
        ((), "PXE-E18"),
        ((DhcpServer(),), "PXE-E16"),
        ((proxy(PXE, DIRECT, file=b"there.efi"),), "PXE-E16"),
        ((DhcpServer(), proxy(PXE)), "PXE-E16"),
        ((DhcpServer(), proxy(PXE, DIRECT, file=b"missing.efi")), "PXE-E23"),
        ((DhcpServer(), proxy(PXE, (43, b"\x06\x01\x00\xff"), file=b"there.efi")), "PXE-E21"),
        ((DhcpServer(), proxy(PXE, (43, MENU), file=b"there.efi")), "PXE-E16"),
        ((DhcpServer(nak=True), proxy(PXE, DIRECT, file=b"there.efi")), "PXE-E07"),
        ((DhcpServer((1, b"")), proxy(PXE, DIRECT, file=b"there.efi")), "PXE-E21"),
        ((DhcpServer(), proxy(PXE, DIRECT, (13, b"\0\1"), file=b"there.efi")), "PXE-E05"),
    ],
)
def test_the_error_on_the_screen(servers, code):
    assert end(*servers).code == code


# --- UEFI HTTP Boot ---------------------------------------------------------------------------------------------

HTTP = (60, b"HTTPClient")
URI, NAMED = b"http://192.0.2.10/x.efi", b"http://boot.example/x.efi"
DNS = (6, bytes(4))


@pytest.mark.parametrize(
    ("heard", "kind"),
    [
        (offer(**LEASE), "DhcpOnly"),
        (offer(DNS, **LEASE), "DhcpDns"),
        (offer(PXE, DIRECT, **LEASE, file=b"x"), "DhcpOnly"),
        (offer(HTTP, **LEASE, file=URI), "DhcpIpUri"),
        (offer(HTTP, DNS, **LEASE, file=URI), "DhcpIpUriDns"),
        (offer(HTTP, DNS, **LEASE, file=NAMED), "DhcpNameUriDns"),
        (offer(HTTP, **LEASE, file=NAMED), "DhcpNameUri"),
        (offer(HTTP, file=URI), "ProxyIpUri"),
        (offer(HTTP, file=NAMED), "ProxyNameUri"),
        (offer(HTTP, file=b"snponly.efi"), ""),
        (offer(PXE, file=URI), ""),
        (offer(HTTP), ""),
    ],
)
def test_the_class_of_an_http_offer(heard, kind):
    assert uefi_http.kind(heard.message) == kind


def test_a_name_in_the_uri_needs_a_dns_server_in_the_dhcp_offer():
    plain, dns, named = offer(**LEASE), offer(DNS, **LEASE), offer(HTTP, file=NAMED)
    assert uefi_http.select([plain, named]) is None
    assert uefi_http.select([dns, named]) == dhcp.Choice(dns, named)


def test_uefi_http_boot_follows_nobody_elsewhere() -> None:
    request = uefi_http._request("http://192.0.2.1/a.efi", "GET")
    assert (request.redirects, request.idle) == (0, uefi_http.IDLE)
